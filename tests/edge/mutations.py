"""Request heads as an attacker bends them, the same for the same number."""

from __future__ import annotations

import random
import string

_BASES = (
    "GET /m{n} HTTP/1.1\r\nHost: HOST\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    "HEAD /m{n} HTTP/1.1\r\nHost: HOST\r\nAccept-Encoding: gzip\r\n\r\n",
    "POST /m{n} HTTP/1.1\r\nHost: HOST\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}",
    "PUT /m{n} HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n",
    "DELETE /m{n} HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n",
    "GET /m{n} HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "POST /m{n} HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n{body}",
)
_PIECES = (
    *("\r\n", "\n", "\r", " ", "\t", ":", "\x00", ",", ";", "0", "\xff", "\x0b", "\x0c", "\x85", "\xa0", "_", "-", "/"),
    *("?", "#", "%", "%0a", "%00", "..", "//", "\\", '"', "'", "\x7f", "\x1f", "+", "="),
    *("Host: other\r\n", "Host: HOST\r\n", "host:HOST:80\r\n", "X-Forwarded-Host: other\r\n"),
    *("Content-Length: 0\r\n", "Content-Length: 3\r\n", "content-length:4\r\n", "Content-Length: +4\r\n"),
    *("Content_Length: 5\r\n", "Content-Length : 5\r\n", "Content-Length:\t6 \r\n", "Content-Length: 1, 1\r\n"),
    *("Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "transfer-encoding:\tCHUNKED\r\n"),
    *("Transfer-Encoding: x, chunked\r\n", "Transfer-Encoding: chunked, x\r\n", "Transfer_Encoding: chunked\r\n"),
    *("Transfer-Encoding:\r\n chunked\r\n", "Transfer-Encoding\r\n: chunked\r\n", "TE: trailers\r\n", "Trailer: X\r\n"),
    *("Connection: close\r\n", "Connection: Content-Length\r\n", "Connection: keep-alive, X-Stagely-PR\r\n"),
    *("Connection: upgrade\r\n", "Upgrade: websocket\r\n", "Upgrade: h2c\r\n", "HTTP2-Settings: A\r\n"),
    *("Expect: 100-continue\r\n", "Expect: x\r\n", "X-Stagely-PR: 9\r\n", "x_stagely_team: evil\r\n"),
    *("X:\r\n", "X: y\r\n", "5\r\n", "ffffffff\r\n", "\r\n "),
    *("HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/1.1\r\n", "GET ", "POST ", "http://HOST/", "http://other/", "*"),
    *("0\r\n\r\n", "\r\n\r\n", "1;a=b\r\n", "GET /inner{n} HTTP/1.1\r\nHost: HOST\r\n\r\n"),
)  # fmt: skip
_OTHER_CASE = str.maketrans(string.ascii_letters, string.ascii_letters.swapcase())  # ASCII's letters alone.
_SMUGGLED = "GET /smuggled{n} HTTP/1.1\r\nHost: HOST\r\n\r\n"


def mutated(n: int, seed: int = 0) -> str:
    """Request number `n`, with HOST where the preview's host name belongs; Latin-1.

    Bodies look like requests, so that a server that finds another end of the head serves what it should not.
    """
    chance = random.Random(seed * 1_000_003 + n)
    body = chance.choice(("", "abc", _SMUGGLED.format(n=n)))
    wire_length = len(body.encode("latin-1"))  # Before HOST is replaced: see `with_host`.
    text = chance.choice(_BASES).format(n=n, length=wire_length, size=wire_length, body=body)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        bend = chance.choice((_put_in, _put_in, _put_in, _at_line, _at_line, _take_out, _repeat, _swap_case))
        text = bend(chance, text)
    return text.replace("{n}", str(n))


def with_host(text: str, host: str) -> bytes:
    """The bytes for one preview. `host` must be four characters long, as the placeholder, or lengths would be wrong."""
    if len(host) != len("HOST"):
        raise ValueError(f"a host name here has four characters, got {host!r}")
    return text.replace("HOST", host).encode("latin-1")


def _put_in(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    over = chance.choice((0, 0, 0, 0, 1, 1, 2, 4))
    return text[:at] + chance.choice(_PIECES) + text[at + over :]


def _at_line(chance: random.Random, text: str) -> str:
    """At the beginning of a line, where a whole field fits."""
    starts = [at + 2 for at in range(len(text)) if text.startswith("\r\n", at)] or [0]
    at = chance.choice(starts)
    return text[:at] + chance.choice(_PIECES) + text[at:]


def _take_out(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + chance.choice((1, 1, 2, 5)) :]


def _repeat(chance: random.Random, text: str) -> str:
    lines = text.split("\r\n")
    at = chance.randrange(len(lines))
    return "\r\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def _swap_case(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at : at + 8].translate(_OTHER_CASE) + text[at + 8 :]
