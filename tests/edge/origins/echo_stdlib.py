"""Python's http.server as an origin: notes every request and answers with it."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECORD = os.open(os.environ["RECORD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


class Echo(BaseHTTPRequestHandler):
    """http.server leaves bodies to its user: this one reads both framings, as simply as the standard allows."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):  # Whatever the method is called.
            return self.echo
        raise AttributeError(name)

    def echo(self) -> None:
        length = self._chunked() if self.headers["Transfer-Encoding"] else self._counted()
        seen = f"{self.command} {self.path} HTTP/1.1\t{length}\n".encode("latin-1")
        os.write(RECORD, seen)
        self.send_response(200)
        self.send_header("X-Body-Length", str(length))
        self.send_header("Content-Length", str(len(seen)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else seen)

    def _counted(self) -> int:
        length = int(self.headers["Content-Length"] or 0)
        if len(self.rfile.read(length)) < length:
            raise ConnectionAbortedError("the body was cut off")
        return length

    def _chunked(self) -> int:
        length = 0
        while size := int(self.rfile.readline(), 16):
            length += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return length

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        pass


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
