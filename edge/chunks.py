"""The chunked transfer coding, read strictly and piece by piece. Pure.

Source: RFC 9112 section 7.1. Stricter than it: no space around the size, extensions of at most 256 bytes (dropped), and
no trailer fields in requests.
"""

from __future__ import annotations

import enum
import re

LAST_CHUNK = b"0\r\n\r\n"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]{0,256})?\r\n")
_SIZE_LINE_MAX = 15 + 1 + 256 + 2
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_TRAILERS_MAX = 8192  # All trailer lines of a response together; they are read and dropped.


class BadChunk(ValueError):
    """Bytes that are not the chunked coding as read here; the connection they came on cannot be used further."""


class _Expect(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    NOTHING = enum.auto()


class ChunkReader:
    """Takes the bytes of one chunked body in any pieces.

    After each `feed`: `done` says whether the body ended, and `rest` holds the bytes that came behind its end.
    """

    __slots__ = ("_buffer", "_expect", "_left", "_trailers_allowed", "_trailers_size", "rest")

    def __init__(self, *, trailers_allowed: bool) -> None:
        self._trailers_allowed = trailers_allowed
        self._trailers_size = 0
        self._buffer = b""
        self._expect = _Expect.SIZE
        self._left = 0
        self.rest = b""

    @property
    def done(self) -> bool:
        return self._expect is _Expect.NOTHING

    def feed(self, data: bytes) -> bytes:
        """The payload inside `data`, chunk framing removed. Raises BadChunk."""
        data = self._buffer + data if self._buffer else data
        payload: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            then = self._step(data, at, payload)
            if then < 0:
                break
            at = then
        self._buffer = b"" if self.done else data[at:]
        self.rest = data[at:] if self.done else b""
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _step(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Where reading goes on, or -1 when more bytes are needed first."""
        if self._expect is _Expect.SIZE:
            return self._size(data, at)
        if self._expect is _Expect.DATA:
            piece = data[at : at + self._left]
            payload.append(piece)
            self._left -= len(piece)
            self._expect = _Expect.DATA if self._left else _Expect.DATA_END
            return at + len(piece)
        if self._expect is _Expect.DATA_END:
            return self._line_end(data, at, _Expect.SIZE, "chunk is longer than its size says")
        return self._trailer(data, at)

    def _size(self, data: bytes, at: int) -> int:
        found = _SIZE_LINE.match(data, at)
        if found is None:
            if b"\n" in data[at:] or len(data) - at >= _SIZE_LINE_MAX:
                raise BadChunk(f"chunk size line is malformed: {data[at : at + 40]!r}")
            return -1
        self._left = int(found[1], 16)
        self._expect = _Expect.DATA if self._left else _Expect.TRAILER
        return found.end()

    def _line_end(self, data: bytes, at: int, then: _Expect, complaint: str) -> int:
        ending = data[at : at + 2]
        if not b"\r\n".startswith(ending):
            raise BadChunk(complaint)
        if len(ending) < 2:
            return -1
        self._expect = then
        return at + 2

    def _trailer(self, data: bytes, at: int) -> int:
        if data[at] == 0x0D:
            return self._line_end(data, at, _Expect.NOTHING, "body ends with a bare CR")
        if not self._trailers_allowed:
            raise BadChunk("trailer fields are not accepted")
        found = _TRAILER_LINE.match(data, at)
        if found is None:
            if b"\n" in data[at:] or self._trailers_size + len(data) - at > _TRAILERS_MAX:
                raise BadChunk("trailer field is malformed or too long")
            return -1
        self._trailers_size += found.end() - at
        if self._trailers_size > _TRAILERS_MAX:
            raise BadChunk(f"trailer fields are longer than {_TRAILERS_MAX} bytes")
        return found.end()


def as_chunk(payload: bytes) -> bytes:
    """One chunk; b"" for no payload, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
