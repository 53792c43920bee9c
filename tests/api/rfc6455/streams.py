"""Streams nobody should send: good and bad requests and frames, put together and then damaged, all from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.api.rfc6455.library import LEAVE
from tests.api.rfc6455.peer import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    bytewise,
    close,
    frame,
    head,
    instead,
    masked,
    ping,
    request,
    text,
)

PIECES = ["", "a", "hello", "ü", "€", "😀", "x" * 130, LEAVE]
BAD_PIECES = [b"\x80", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xff", b"\xc0\x80"]
CODES = [*[1000] * 9, 1001, 1002, 1007, 1011, 1014, 3000, 4999, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535]
REQUESTS = [
    request(path="/v1/agent/connect?a=b"),
    request(path="/"),
    request(method="POST"),
    request(version="HTTP/1.0"),
    request(version="HTTP/2.0"),
    request("Host: b"),
    request("Origin: null"),
    request("Content-Length: 0"),
    request("Content-Length: 5"),
    request("Transfer-Encoding: chunked"),
    request("X-Long: " + "a" * 300),
    request(*[f"X-{n}: a" for n in range(130)]),
    request("X-Long: " + "a" * 8200),
    request(path="/" + "a" * 8200),
    *(
        request(without=name)
        for name in ("Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version")
    ),
    *(instead("Host", host) for host in ("", "a b", "a:1", "a:b", "[::1]:80", "[::1", "a/b", "http://a")),
    *(instead("Connection", value) for value in ("close", "keep-alive, Upgrade", "", "Up grade")),
    *(instead("Upgrade", value) for value in ("WebSocket", "h2c", "websocket, h2c", "")),
    *(instead("Sec-WebSocket-Key", value) for value in ("", "AAAA", "!" * 24, KEY[:-1])),
    *(instead("Sec-WebSocket-Version", value) for value in ("8", "", "13, 8")),
    instead("Sec-WebSocket-Key", KEY, KEY),
    instead("Sec-WebSocket-Version", "13", "13"),
]


@dataclass(frozen=True, slots=True)
class Case:
    """A stream, the pieces in which the network brings it, and whether it ends there."""

    stream: bytes
    pieces: list[bytes]
    ends: bool


def case(seed: int) -> Case:
    """The same seed always gives the same case."""
    rng = Random(seed)
    opening = rng.choice(REQUESTS) if rng.random() < 0.15 else request()
    frames = b"".join(rng.choice(FRAMES)(rng) for _ in range(rng.randint(0, 8)))
    stream = _damaged(rng, opening, frames)
    return Case(stream, _cut(rng, stream), rng.random() < 0.5)


def _whole_text(rng: Random) -> bytes:
    return text(rng.choice(PIECES))


def _joined_text(rng: Random) -> bytes:
    return text("".join(rng.choices(PIECES, k=3)))


def _bad_text(rng: Random) -> bytes:
    return text(rng.choice(PIECES).encode() + rng.choice(BAD_PIECES))


def _fragmented(rng: Random) -> bytes:
    """A text cut anywhere, also within characters, with other frames between."""
    raw = "".join(rng.choices(PIECES, k=3)).encode() + rng.choice([b"", b"", b"", rng.choice(BAD_PIECES)])
    border = rng.randint(0, len(raw))
    between = rng.choice([b"", b"", ping("p"), frame(PONG), close(), text("a"), frame(BINARY, fin=False)])
    middle = frame(CONT, fin=False) if rng.random() < 0.3 else b""
    return frame(TEXT, raw[:border], fin=False) + between + middle + frame(CONT, raw[border:])


def _unfinished(rng: Random) -> bytes:
    return frame(rng.choice([TEXT, CONT, BINARY]), rng.choice(PIECES), fin=False)


def _continuation(rng: Random) -> bytes:
    return frame(CONT, rng.choice(PIECES))


def _control(rng: Random) -> bytes:
    return frame(rng.choice([PING, PING, PONG]), rng.randbytes(rng.choice([0, 1, 5, 124, 125])))


def _bad_control(rng: Random) -> bytes:
    opcode = rng.choice([PING, PONG, CLOSE])
    is_long = rng.random() < 0.5
    return frame(opcode, b"\x03\xe8" + b"x" * (124 if is_long else 3), fin=is_long)


def _close(rng: Random) -> bytes:
    reason = rng.choice([b"", b"", b"bye", "tschüß".encode(), b"x" * 123, rng.choice(BAD_PIECES)])
    return close(rng.choice([None, *CODES]), reason) if rng.random() < 0.9 else frame(CLOSE, b"\x03")


def _binary(rng: Random) -> bytes:
    return frame(BINARY, rng.randbytes(rng.choice([0, 3])))


def _any_opcode(rng: Random) -> bytes:
    return frame(rng.randrange(16), rng.choice(PIECES), fin=rng.random() < 0.7)


def _unmasked(rng: Random) -> bytes:
    return frame(rng.choice([TEXT, PING, CLOSE]), rng.choice(PIECES), mask=None)


def _reserved_bits(rng: Random) -> bytes:
    return frame(rng.choice([TEXT, CONT, PING]), rng.choice(PIECES), rsv=rng.randint(1, 7))


def _longer_form(rng: Random) -> bytes:
    raw = rng.choice(PIECES).encode()
    return head(rng.choice([TEXT, PING]), len(raw), form=8 if len(raw) > 125 else rng.choice([2, 8])) + masked(raw)


def _too_large(rng: Random) -> bytes:
    """Only far above the limit: near it the library counts a ping between fragments as part of their message."""
    return head(rng.choice([TEXT, CONT, BINARY, PING]), rng.choice([2**20, 2**32, 2**63]), fin=rng.random() < 0.5)


def _noise(rng: Random) -> bytes:
    return rng.randbytes(rng.randint(1, 12))


FRAMES: list[Callable[[Random], bytes]] = [
    *[_whole_text] * 6,
    *[_joined_text] * 3,
    *[_fragmented] * 6,
    *[_control] * 6,
    *[_close] * 2,
    _bad_text,
    _unfinished,
    _continuation,
    _bad_control,
    _binary,
    _any_opcode,
    _unmasked,
    _reserved_bits,
    _longer_form,
    _too_large,
    _noise,
]


def _damaged(rng: Random, opening: bytes, frames: bytes) -> bytes:
    """One time in ten the request is damaged, four times in ten the frames."""
    chance = rng.random()
    if chance < 0.1:
        return _mutated(rng, opening) + frames
    return opening + (_mutated(rng, frames) if chance < 0.5 else frames)


def _mutated(rng: Random, raw: bytes) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(raw))
        raw = raw[:at] + rng.choice(DAMAGES)(rng, raw[at:])
    return raw


def _flip_bit(rng: Random, raw: bytes) -> bytes:
    return bytes([raw[0] ^ 1 << rng.randrange(8)]) + raw[1:] if raw else raw


def _put_in(rng: Random, raw: bytes) -> bytes:
    return rng.randbytes(rng.randint(1, 4)) + raw


def _leave_out(rng: Random, raw: bytes) -> bytes:
    return raw[rng.randint(1, 4) :]


def _double(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.randint(1, 20)] + raw


def _break_off(_: Random, raw: bytes) -> bytes:
    return raw[:0]


DAMAGES: list[Callable[[Random, bytes], bytes]] = [_flip_bit, _flip_bit, _put_in, _leave_out, _double, _break_off]


def _cut(rng: Random, stream: bytes) -> list[bytes]:
    chance = rng.random()
    if chance < 0.1:
        return bytewise(stream)
    borders = sorted({0, len(stream), *(rng.randint(0, len(stream)) for _ in range(rng.randint(0, 12)))})
    return [stream[start:end] for start, end in pairwise(borders)]
