"""The client's half of RFC 6455, as little of it as a simulated agent needs. Pure.

Frames to the server are masked (section 5.3) and whole; those from it are neither masked nor, here, in fragments.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from dataclasses import dataclass

from websockets.speedups import apply_mask

from agent.protocol import CONNECT_PATH, NONCE_HEADER

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
_FIN, _MASKED = 0x80, 0x80
_KEY = base64.b64encode(b"stagely-gateway!").decode()  # Any 16 bytes; section 4.1 wants them random against caches.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # Section 1.3.
_ACCEPT = base64.b64encode(hashlib.sha1((_KEY + _GUID).encode()).digest())
_NONCE = f"\r\n{NONCE_HEADER}:".encode()
HEAD_END = b"\r\n\r\n"


class BadServer(Exception):
    """The server said something that no client may accept."""


@dataclass(frozen=True, slots=True)
class Frame:
    opcode: int
    payload: bytes


def upgrade_request(host: str) -> bytes:
    lines = (
        f"GET {CONNECT_PATH} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}", "Sec-WebSocket-Version: 13",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + HEAD_END


def check_upgraded(head: bytes) -> None:
    """Raises BadServer unless `head` answers our request."""
    if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head:
        raise BadServer(f"no upgrade but {head[:80]!r}")


def nonce_of(head: bytes) -> str:
    """What the server of this answer wants its HELLO signed over; "" when it names nothing."""
    _, _, rest = head.partition(_NONCE)
    return rest.partition(b"\r\n")[0].strip().decode("latin-1")


def masked(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One frame to the server."""
    mask = mask or os.urandom(4)
    return head(opcode, len(payload), mask) + apply_mask(payload, mask)


def head(opcode: int, length: int, mask: bytes) -> bytes:
    """The head of a masked frame."""
    first = _FIN | opcode
    if length < 126:
        return struct.pack("!BB", first, _MASKED | length) + mask
    if length < 0x10000:
        return struct.pack("!BBH", first, _MASKED | 126, length) + mask
    return struct.pack("!BBQ", first, _MASKED | 127, length) + mask


def cut(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of `data`, and the rest. Raises BadServer."""
    frames = []
    at, end = 0, len(data)
    while end - at >= 2:
        first, second = data[at], data[at + 1]
        if not first & _FIN or second & _MASKED:
            raise BadServer(f"a frame that begins with {data[at : at + 2].hex()} in hex")
        start, length = at + 2, second
        if length == 126:
            start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
        elif length == 127:
            start, length = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
        if end < start + length:
            break
        frames.append(Frame(first & 0x0F, data[start : start + length]))
        at = start + length
    return frames, data[at:]
