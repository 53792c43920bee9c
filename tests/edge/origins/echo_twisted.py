"""Twisted as an origin: notes every request and answers with it. Runs under the distribution's interpreter."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

reactor: Any = importlib.import_module("twisted.internet.reactor")  # Debian's packages: unknown to this repository.
http: Any = importlib.import_module("twisted.web.http")
RECORD = os.open(os.environ["RECORD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


class Echo(http.Request):  # type: ignore[misc]
    def process(self: Any) -> None:
        length = len(self.content.read())
        seen = b"%b %b HTTP/1.1\t%d\n" % (self.method, self.uri, length)
        os.write(RECORD, seen)
        self.setHeader(b"X-Body-Length", b"%d" % length)
        self.setHeader(b"Content-Length", b"%d" % len(seen))
        self.write(b"" if self.method == b"HEAD" else seen)
        self.finish()


class EchoChannel(http.HTTPChannel):  # type: ignore[misc]
    requestFactory = Echo  # Twisted's name.


factory = http.HTTPFactory()
factory.protocol = lambda: http._GenericHTTPChannelProtocol(EchoChannel())
reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
reactor.run()
