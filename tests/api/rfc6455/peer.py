"""A WebSocket client written by hand over a blocking socket: it sends what nobody should, and believes nothing."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DEADLINE_S = 10.0  # Far above anything here; a test that needs it has failed.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"  # RFC 6455 section 5.7.

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONT: "cont", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}

Said = tuple[str, bytes | int]
"""What one frame of the gateway says: ("text", bytes), ("pong", bytes), or ("close", its code; 1005 for none)."""


@dataclass(frozen=True, slots=True)
class Head:
    """The gateway's answer to a request. `headers` has lower-case names; a name that comes twice is an error."""

    status: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """All that came back until the gateway ended the connection. `head` is None when it was no HTTP."""

    head: Head | None
    frames: list[tuple[int, bytes]]

    @property
    def status(self) -> int:
        return self.head.status if self.head else 0

    @property
    def said(self) -> list[Said]:
        return [_said(opcode, payload) for opcode, payload in self.frames]


class Peer:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Each piece by a call of its own."""
        for piece in pieces:
            self._socket.sendall(piece)

    def end(self) -> None:
        """Say that nothing more comes, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def read_head(self) -> bytes:
        """Up to the empty line; not a byte of what follows."""
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            one = self._socket.recv(1)
            assert one, f"the connection ended within the answer's head: {got!r}"
            got += one
        return got

    def read_bytes(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self._socket.recv(size - len(got))
            assert more, f"the connection ended before {size} bytes came: {got!r}"
            got += more
        return got

    def read_rest(self) -> bytes:
        """Until the gateway ends the connection. A reset is an error: it may destroy what was said before."""
        parts = []
        while part := self._socket.recv(65536):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def dialled(port: int) -> Iterator[Peer]:
    """A connection that has said nothing yet."""
    peer = Peer(port)
    try:
        yield peer
    finally:
        peer.close()


@contextmanager
def connected(port: int) -> Iterator[Peer]:
    """A connection behind its handshake."""
    with dialled(port) as peer:
        peer.send([request()])
        assert parse_head(peer.read_head()).status == 101
        yield peer


def ask(port: int, pieces: Iterable[bytes], *, ends: bool = False) -> Answer:
    """What is answered to these bytes on a fresh connection, which the gateway must end."""
    with dialled(port) as peer:
        peer.send(pieces)
        if ends:
            peer.end()
        return parse(peer.read_rest())


def talk(port: int, pieces: Iterable[bytes], *, ends: bool = False) -> Answer:
    """What is answered to these bytes behind a good handshake; the gateway must end the connection."""
    with connected(port) as peer:
        peer.send(pieces)
        if ends:
            peer.end()
        return Answer(None, parse_frames(peer.read_rest()))


def request(
    *more: str,
    method: str = "GET",
    path: str = "/v1/agent/connect",
    version: str = "HTTP/1.1",
    without: str = "",
) -> bytes:
    """A good handshake, but for what is asked. `without` names a header to leave out; `more` are whole header lines."""
    headers = [
        "Host: gateway.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
    ]
    kept = [header for header in headers if header.partition(":")[0] != without]
    return ("\r\n".join([f"{method} {path} {version}", *kept, *more]) + "\r\n\r\n").encode("latin-1")


def instead(name: str, *values: str) -> bytes:
    """A good handshake whose header `name` comes once with each of these values."""
    return request(*(f"{name}: {value}" for value in values), without=name)


def accept_of(key: str) -> str:
    """Source: RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def frame(
    opcode: int, payload: bytes | str = b"", *, fin: bool = True, mask: bytes | None = MASK, rsv: int = 0
) -> bytes:
    """One frame in its shortest form. `rsv` is the three reserved bits as a number; no mask gives a bare frame."""
    raw = payload.encode() if isinstance(payload, str) else payload
    return head(opcode, len(raw), fin=fin, is_masked=mask is not None, rsv=rsv) + masked(raw, mask)


def head(
    opcode: int, length: int, *, fin: bool = True, is_masked: bool = True, rsv: int = 0, form: int | None = None
) -> bytes:
    """Two bytes and the length. `form` is how many more bytes the length takes (0, 2 or 8), by default the fewest."""
    size = form if form is not None else 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[size]
    return bytes([fin << 7 | rsv << 4 | opcode, is_masked << 7 | short]) + (length.to_bytes(size) if size else b"")


def masked(payload: bytes, mask: bytes | None = MASK) -> bytes:
    """The mask, and the payload under it."""
    if mask is None:
        return payload
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return mask + (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(len(payload))


def text(payload: bytes | str) -> bytes:
    return frame(TEXT, payload)


def ping(payload: bytes | str = b"") -> bytes:
    return frame(PING, payload)


def close(code: int | None = 1000, reason: bytes | str = b"") -> bytes:
    raw = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + raw)


def fragments(*parts: bytes | str, opcode: int = TEXT) -> bytes:
    """One message in so many frames."""
    last = len(parts) - 1
    return b"".join(frame(opcode if n == 0 else CONT, part, fin=n == last) for n, part in enumerate(parts))


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[n : n + 1] for n in range(len(stream))]


def parse(answer: bytes) -> Answer:
    """A head, and frames behind it when the head says 101."""
    if not answer.startswith(b"HTTP/"):
        return Answer(None, parse_frames(answer))
    raw, _, rest = answer.partition(b"\r\n\r\n")
    found = parse_head(raw + b"\r\n\r\n")
    return Answer(found, parse_frames(rest) if found.status == 101 else [])


def parse_head(raw: bytes) -> Head:
    lines = raw.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    version, status, _ = lines[0].split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = [line.split(": ", 1) for line in lines[1:]]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), f"a header comes twice: {lines}"
    return Head(int(status), headers)


def parse_frames(raw: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of every frame; a frame that no strict server sends is an error."""
    found: list[tuple[int, bytes]] = []
    while raw:
        opcode, payload, raw = _parse_frame(raw)
        has_closed = any(kind == CLOSE for kind, _ in found)
        assert not has_closed or opcode == PONG, "only pongs may follow a close frame, and only one that we began"
        found.append((opcode, payload))
    return found


def _parse_frame(raw: bytes) -> tuple[int, bytes, bytes]:
    assert len(raw) >= 2, f"half a frame: {raw!r}"
    assert raw[0] & 0xF0 == 0x80, "the gateway sends whole messages, without reserved bits"
    assert not raw[1] & 0x80, "a server's frames are not masked"
    opcode, length, at = raw[0] & 0x0F, raw[1], 2
    if length >= 126:
        at, least = (4, 126) if length == 126 else (10, 65536)
        length = int.from_bytes(raw[2:at])
        assert length >= least, "a length in a longer form than it needs"
    assert len(raw) >= at + length, f"half a frame: {raw[:100]!r}"
    assert opcode in (TEXT, CLOSE, PONG), "the gateway has nothing else to say"
    assert opcode == TEXT or length <= 125
    return opcode, raw[at : at + length], raw[at + length :]


def _said(opcode: int, payload: bytes) -> Said:
    if opcode != CLOSE:
        return NAMES[opcode], payload
    if not payload:
        return "close", 1005
    payload[2:].decode()  # A reason is UTF-8, or this raises.
    return "close", int.from_bytes(payload[:2])
