"""What the fakes of DNS providers share: a socket, the records, a journal, and ways to misbehave."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

POLL_S = 0.02

Seen = Callable[[str, list[str]], None]
"""(name, its TXT values now): called with every change, before the API answers."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeDns(abc.ABC):
    """One account with one zone. `journal`: "METHOD path" of what came; `complaints`: what is wrong with it."""

    def __init__(self, zone: str, seen: Seen = lambda name, values: None) -> None:
        self.zone = zone
        self.txt: dict[str, list[str]] = {}
        self.journal: list[str] = []
        self.complaints: list[str] = []
        self.is_revoked = False
        self._seen = seen
        self._faults: list[Answer | None] = []
        self._loses_reply_of = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL_S})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if error is None:
            assert self.complaints == []

    def answer_next(self, status: int, **headers: str) -> None:
        """The next request gets this, without any effect."""
        self._faults.append(Answer(status, self.problem(status, "told to"), headers))

    def lose_reply_of(self, method: str) -> None:
        """The next request of this method has its effect, and the connection dies before the answer."""
        self._loses_reply_of = method

    def change(self, name: str, values: list[str]) -> None:
        """What the world sees under the name from now on."""
        self.txt[name] = values
        if not values:
            del self.txt[name]
        self._seen(name, values)

    def take(self, request: Request) -> Answer | None:
        """None: the connection is closed without an answer."""
        self.journal.append(f"{request.method} {request.path}")
        if self._faults:
            return self._faults.pop(0)
        if self.is_revoked or not self.is_let_in(request):
            return self.refused()
        answer = self.answer(request)
        if request.method == self._loses_reply_of:
            self._loses_reply_of = ""
            return None
        return answer

    @abc.abstractmethod
    def is_let_in(self, request: Request) -> bool: ...

    @abc.abstractmethod
    def answer(self, request: Request) -> Answer: ...

    @abc.abstractmethod
    def refused(self) -> Answer:
        """What a wrong token gets."""

    @abc.abstractmethod
    def problem(self, status: int, text: str) -> bytes:
        """An error's body."""


def _handler_of(fake: FakeDns) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # Head and body in one packet: two would wait for each other (Nagle).

        def _take(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body)
            answer = fake.take(request)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_DELETE = _take

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the journal has it."""

    return Handler
