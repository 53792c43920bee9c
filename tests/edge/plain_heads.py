"""Plain heads as an attacker bends them, the same for the same number, and what the long way makes of them."""

from __future__ import annotations

import random

from edge.head import BadResponse, HeadRefused, Request, read_request, read_response
from edge.headers import response_bytes

REQUEST = (
    b"GET /a?b HTTP/1.1\r\nHost: x.localhost\r\nConnection: keep-alive\r\nUser-Agent: x\r\nCookie: a=b; c=d\r\n"
    b"Cache-Control: no-cache\r\nTe-st: 1\r\nX-Requested-With: y\r\nKeep: z\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: keep-alive\r\n"
    b"Keep-Alive: timeout=5\r\nCache-Control: no-store\r\nX-Powered-By: y\r\nAlt: z\r\n"
)
BODY = b"hello, world"
_PIECES = (
    b"",
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b",", b"0", b"\xff", b"\x7f", b"_", b"-", b"a", b"\r\n "),
    *(b"Host: y.localhost\r\n", b"hOST:\t[::1]:8\r\n", b"Connection: close\r\n", b"connection:keep-alive\r\n"),
    *(b"Connection: x-requested-with\r\n", b"Keep-Alive: 5\r\n", b"Upgrade: websocket\r\n", b"Proxy-Foo: 1\r\n"),
    *(b"Content-Length: 3\r\n", b"Content_Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X_Stagely-PR: 9\r\n"),
    *(b"X-Forwarded-For: 1\r\n", b"Forwarded: 1\r\n", b"Set-Cookie: a=b; Domain=x\r\n", b"X-Robots-Tag: all\r\n"),
    *(b"Host: y:65535\r\n", b"Host: y:65536\r\n", b"Host: y:00080\r\n", b"X.Stagely~PR: 9\r\n", b"x|REAL!Ip: 1\r\n"),
    *(b"Connection: keep_alive\r\n", b"Connection: keep.alive\r\n", b"Content.Length: 3\r\n", b"Keep_Alive: 5\r\n"),
    *(b"Expect: 100-continue\r\n", b"Trailer: x\r\n", b"HTTP/1.0", b"HTTP/1.1", b"204", b"no reason", b"TE: x\r\n"),
    *(b"CONNECT ", b"TRACE ", b"GET /", b" /", b"#", b"?", b"*", b"http://x/", b"Origin-Agent-Cluster: ?0\r\n"),
)  # fmt: skip


_LONG_PIECES = (b"a" * 250, b"a" * 8100, b"a" * 32400, b"A:b\r\n" * 92, b"9" * 18)


def mutated_request(seed: int) -> bytes:
    return _mutated(REQUEST, random.Random(seed)) + b"\r\n"


def mutated_answer(seed: int) -> bytes:
    """A mutated response head and a body, which mostly has the length that the unmutated head says."""
    return _mutated(RESPONSE, random.Random(seed)) + b"\r\n" + BODY + b"!" * (seed % 5 == 0)


def _mutated(head: bytes, chance: random.Random) -> bytes:
    """The head with a few pieces put in, over, or cut out; its last line ends."""
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(head))
        head = head[:at] + _piece(chance) + head[at + chance.choice((0, 0, 1, 2, 6)) :]
    return head if head.endswith(b"\r\n") else head + b"\r\n"


def _piece(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.02:
        return chance.choice(_LONG_PIECES)[chance.randrange(8) :]
    return chance.choice(_PIECES) if kind < 0.9 else bytes((chance.randrange(256),))


def long_way(head: bytes) -> Request | None:
    """What edge.head makes of all these bytes if they are one head; None: it refuses them, or wants more."""
    end = head.find(b"\r\n\r\n")
    try:
        return read_request(head[:-2]) if end == len(head) - 4 else None
    except HeadRefused:
        return None


def long_way_back(data: bytes) -> tuple[int, bytes] | None:
    """Status and what the visitor gets, as edge.upstream composes it for what is no plain answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    try:
        response = read_response(head + b"\r\n")
    except BadResponse:
        return None
    if response.length != len(body):
        return None
    return response.status, response_bytes(response, chunked=False, closes=False) + body
