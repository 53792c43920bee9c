"""A certificate authority that takes accounts and no orders, as one does whose limits are reached."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

POLL_S = 0.02


class OverloadedAuthority:
    """Answers every order with `status` and a problem `kind`, and says when to come back."""

    def __init__(self, *, status: int = 429, kind: str = "rateLimited", retry_after: str | None = None) -> None:
        self.orders = 0
        self.status = status
        self.problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": "too many orders", "status": status}
        self.retry_after = retry_after
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL_S})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def directory(self) -> str:
        return f"{self.url}/dir"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler_of(authority: OverloadedAuthority) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order"}
            self._send(200, {key: f"{authority.url}/{path}" for key, path in paths.items()})

        def do_HEAD(self) -> None:
            self._send(200, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/account":
                self._send(201, {"status": "valid"}, Location=f"{authority.url}/account/1")
                return
            authority.orders += 1
            wait = {} if authority.retry_after is None else {"Retry-After": authority.retry_after}
            self._send(authority.status, authority.problem, **wait)

        def _send(self, status: int, body: dict[str, object] | dict[str, str], **headers: str) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            kind = "application/json" if status < 400 else "application/problem+json"
            for name, value in {"Content-Type": kind, "Replay-Nonce": "bm9uY2U", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler
