"""What `websockets`' Sans-I/O server answers, used as its documentation says and fed a request, then byte by byte.

Byte by byte, because what it answers to several frames of one segment depends on where the network cut them.
Its owner does what ours does: one path, no Origin, texts only, each sent back. The stricter refusals that are meant are
written down here, in one place: `is_named_host` and `strict_end`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field

from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from tests.api.rfc6455.peer import Said, bytewise, parse

LIMIT = 256 * 1024
PATH = "/v1/agent/connect"
LEAVE = "leave"
"""The text on which the owner closes the connection, with LEFT and "bye"."""
LEFT = 4001
HOST_LETTERS = frozenset(string.ascii_letters + string.digits + ".-_")


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came back: the status of the handshake (0 for no answer yet), frames, and whether that was the end."""

    status: int
    said: list[Said]
    has_ended: bool


@dataclass(slots=True)
class LibraryEcho:
    checks_host: bool
    protocol: ServerProtocol = field(default_factory=lambda: ServerProtocol(max_size=LIMIT))
    written: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    parts: bytearray = field(default_factory=bytearray)
    is_taking: bool = True

    def receive(self, stream: bytes, *, ends: bool) -> None:
        head, border, frames = stream.partition(b"\r\n\r\n")
        for piece in [head + border, *bytewise(frames)]:
            if self.has_ended:
                return
            self.protocol.receive_data(piece)
            self._handle()
        if ends and not self.has_ended:
            self.protocol.receive_eof()
            self._handle()

    def _handle(self) -> None:
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self._refusal(event) or self.protocol.accept(event))
            elif isinstance(event, Frame) and self.is_taking:
                self._take(event)
        for data in self.protocol.data_to_send():
            self.written += data
            self.has_ended = self.has_ended or not data
        if isinstance(self.protocol.handshake_exc, InvalidMessage) and not self.written:
            self.written += b"HTTP/1.1 400 Bad Request\r\n\r\n"  # It hangs up; RFC 6455 section 4.2.1 wants an answer.

    def _refusal(self, request: Request) -> Response | None:
        hosts = request.headers.get_all("Host")
        if request.path.partition("?")[0] != PATH:
            return self.protocol.reject(404, "")
        if self.checks_host and not (len(hosts) == 1 and is_named_host(hosts[0])):
            return self.protocol.reject(400, "")
        if "Origin" in request.headers:
            return self.protocol.reject(403, "")
        return None

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._fail(CloseCode.UNSUPPORTED_DATA)
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self.parts += frame.data
            if frame.fin:
                whole, self.parts = self.parts, bytearray()
                self._deliver(whole)

    def _deliver(self, raw: bytearray) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA)
            return
        if text == LEAVE:
            self.protocol.send_close(LEFT, "bye")
            self.is_taking = False
        else:
            self.protocol.send_text(raw)

    def _fail(self, code: CloseCode) -> None:
        self.protocol.fail(code)
        self.is_taking = False


def library_outcome(stream: bytes, *, ends: bool) -> Outcome:
    """The library's answer, and no more."""
    return _answered(LibraryEcho(checks_host=False), stream, ends=ends)


def strict_outcome(stream: bytes, *, ends: bool) -> Outcome:
    """The library's answer to what comes before the first frame that we refuse earlier; then that refusal."""
    end = strict_end(stream)
    if end is None:
        return _answered(LibraryEcho(checks_host=True), stream, ends=ends)
    before = _answered(LibraryEcho(checks_host=True), stream[:end], ends=False)
    if before.has_ended:
        return before
    is_closing = ("close", LEFT) in before.said
    return Outcome(before.status, before.said if is_closing else [*before.said, ("close", 1002)], True)


def outcome(written: bytes, has_ended: bool) -> Outcome:
    answer = parse(written)
    return Outcome(answer.status, answer.said, has_ended)


def _answered(echo: LibraryEcho, stream: bytes, *, ends: bool) -> Outcome:
    echo.receive(stream, ends=ends)
    return outcome(bytes(echo.written), echo.has_ended)


def strict_end(stream: bytes) -> int | None:
    """Where the first frame with a reserved bit, or with a length that is not in its shortest form, begins."""
    at = stream.find(b"\r\n\r\n") + 4
    while at >= 4 and at < len(stream):
        if stream[at] & 0x70:
            return at
        short = stream[at + 1] & 0x7F if at + 1 < len(stream) else 0
        size = {126: 2, 127: 8}.get(short, 0)
        field_end = at + 2 + size
        length = int.from_bytes(stream[at + 2 : field_end]) if size else short
        if field_end <= len(stream) and ((size and length < 126) or (size == 8 and length < 65_536)):
            return at
        at = field_end + 4 + length
    return None


def is_named_host(value: str) -> bool:
    """Whether this is a name or an address, with a port or without."""
    if value.startswith("["):
        address, bracket, port = value[1:].partition("]")
        return bool(address) and set(address) <= set(string.hexdigits + ":.") and bool(bracket) and _is_port(port)
    name, colon, port = value.partition(":")
    return bool(name) and set(name) <= HOST_LETTERS and _is_port(colon + port)


def _is_port(tail: str) -> bool:
    digits = tail[1:]
    return not tail or (tail[0] == ":" and set(digits) <= set(string.digits) and len(digits) <= 5)
