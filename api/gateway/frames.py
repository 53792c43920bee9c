"""Where requests and frames end in a stream of bytes, read from the heads alone; and the frames that a gateway sends.

Source of every bit and length: RFC 6455 section 5.2. Pure.
"""

from __future__ import annotations

from websockets.frames import CloseCode, Opcode

from agent.protocol import MAX_FRAME_BYTES

try:
    from websockets.speedups import apply_mask
except ImportError:  # Where the library has no compiled part for this machine, it has its own in Python.
    from websockets.utils import apply_mask

MAX_REQUEST_BYTES = 16 * 1024  # The library alone would hold 1 MiB for anybody: 128 fields of 8 KiB.
STRANGER_BYTES = 8 * 1024  # Of a message while nobody was let in: several times the longest HELLO.
STRANGER_UNREAD_BYTES = 2 * STRANGER_BYTES  # In many short frames that came at once and have to wait.
MAX_HEAD_BYTES = 10  # Of a frame, without its mask.
MASK_BYTES = 4
WHOLE_TEXT, WHOLE_PING, WHOLE_PONG = 0x81, 0x89, 0x8A  # First bytes: the last part of its message, and its opcode.
_PLAIN = frozenset({WHOLE_TEXT, WHOLE_PING, WHOLE_PONG})
_MAX_CONTROL_BYTES = 125


def plain_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """The first byte of a frame that is beyond doubt and as most are, where its body begins, and where it ends.

    That end may lie behind the data. None for every other: one whose head is cut, a fragment, a close frame, or one
    that must not come.
    """
    size = len(data)
    if size < at + 2 + MASK_BYTES or data[at] not in _PLAIN or not data[at + 1] & 0x80:
        return None
    first, length, body = data[at], data[at + 1] & 0x7F, at + 2 + MASK_BYTES
    if length > _MAX_CONTROL_BYTES:
        start = at + (4 if length == 126 else MAX_HEAD_BYTES)
        body = start + MASK_BYTES
        least, length = (126 if length == 126 else 65536), int.from_bytes(data[at + 2 : start])
        if body > size or first != WHOLE_TEXT or not least <= length <= MAX_FRAME_BYTES:
            return None
    return first, body, body + length


def unmask(data: bytes, body: int, end: int) -> bytes:
    """The payload of a frame; its mask stands before its body."""
    return apply_mask(data[body:end], data[body - MASK_BYTES : body])


def unmasked(first_byte: int, payload: bytes) -> bytes:
    """A whole frame as servers send it."""
    length = len(payload)
    if length <= _MAX_CONTROL_BYTES:
        return bytes((first_byte, length)) + payload
    if length < 65536:
        return bytes((first_byte, 126)) + length.to_bytes(2) + payload
    return bytes((first_byte, 127)) + length.to_bytes(8) + payload


class BadHead(Exception):
    """The head of a frame that must not come."""

    def __init__(self, text: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


class RequestEnd:
    """Where the handshake's request ends: behind the first empty line.

    Frames that follow it at once must wait for our answer: the library would answer them before the request.
    """

    __slots__ = ("_left", "_seen")

    def __init__(self) -> None:
        self._seen = b""
        self._left = MAX_REQUEST_BYTES

    @property
    def is_too_far(self) -> bool:
        """Whether all that a request may have is there. One that is not complete then never will be."""
        return not self._left

    def after(self, data: bytes, start: int) -> int:
        """The end of the piece of `data` that begins at `start`."""
        joined = self._seen + data[start:]
        found = joined.find(b"\r\n\r\n")
        end = start + found + 4 - len(self._seen) if found >= 0 else len(data)
        end = min(end, start + self._left)
        self._left -= end - start
        self._seen = joined[-3:]
        return end


class FrameEnds:
    """Where each frame ends, and how large its message grew, from the heads alone."""

    __slots__ = ("_head", "_left", "_limit_bytes", "_message_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes  # Of one message.
        self._head = b""  # What came of a head that is not complete.
        self._left = 0  # Bytes of the frame behind its head that did not come yet.
        self._message_bytes = 0  # In the fragments of a message that is not finished.

    @property
    def is_between(self) -> bool:
        """Whether every frame that began is complete."""
        return not self._head and not self._left

    def after(self, data: bytes, start: int) -> int:
        """The end of the piece of `data` that begins at `start`; a piece never holds bytes of two frames.

        Raises:
            BadHead: reserved bits, no mask, a length that is not in its shortest form, or a message that is too large.
        """
        if not self._left:
            start = self._read_head(data, start)
        end = min(start + self._left, len(data))
        self._left -= end - start
        return end

    def _read_head(self, data: bytes, start: int) -> int:
        head = self._head + data[start : start + MAX_HEAD_BYTES - len(self._head)]
        size, length = _measure(head)
        if not size:
            self._head = head
            return len(data)
        self._count(head[0], length)
        start += size - len(self._head)
        self._head, self._left = b"", MASK_BYTES + length
        return start

    def _count(self, first_byte: int, length: int) -> None:
        if first_byte & 0x0F > Opcode.BINARY:
            return  # A control frame, or what the library will refuse.
        message_bytes = self._message_bytes + length
        if message_bytes > self._limit_bytes:
            raise BadHead(f"a message has at most {self._limit_bytes} bytes here", CloseCode.MESSAGE_TOO_BIG)
        self._message_bytes = 0 if first_byte & 0x80 else message_bytes


def _measure(head: bytes) -> tuple[int, int]:
    """Bytes of this head without its mask, and of the payload; (0, 0) when it is not complete. Raises BadHead."""
    if head[0] & 0x70:
        raise BadHead("reserved bits must be 0")
    if len(head) < 2:
        return 0, 0
    if not head[1] & 0x80:
        raise BadHead("frames must be masked")
    length = head[1] & 0x7F
    if length < 126:
        return 2, length
    size, least = (4, 126) if length == 126 else (10, 65536)
    if len(head) < size:
        return 0, 0
    length = int.from_bytes(head[2:size])
    if length < least:
        raise BadHead("a length must have its shortest form")
    return size, length
