"""Raw requests by class, each with all that comes of it: the answers' statuses, and what the origin sees, in order."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from edge.routes import encode, key_of
from tests.edge.conftest import EdgeProcess, ready_route
from tests.edge.wire import Origin, origin, visitor


@pytest.fixture
def port(edge_by_reader: EdgeProcess, redis: Redis) -> int:
    """These tests run with both forms of the reader of plain heads."""
    return edge_by_reader.port


H = "Host: HOST\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
INNER = "GET /inner HTTP/1.1\r\nHost: HOST\r\n\r\n"
SECOND = "GET /second HTTP/1.1\r\nHost: HOST\r\n\r\n"
L = len(INNER) + len("row00001.localhost") - len("HOST")  # On the wire, where every host name is as long as this one.
SEEN_ABC = [("POST / HTTP/1.1", "abc")]
GET, SEEN_GET = "GET / HTTP/1.1\r\n", ("GET / HTTP/1.1", "")
POST = "POST / HTTP/1.1\r\n"

_numbers = itertools.count(1)
Row = tuple[str, str, list[int], list[tuple[str, str]]]

SMUGGLING: list[Row] = [
    ("cl-body-is-a-request", f"{POST}{H}Content-Length: {L}\r\n\r\n{INNER}", [200], [("POST / HTTP/1.1", INNER)]),
    (
        "chunked-body-is-a-request",
        f"{POST}{H}{CHUNKED}\r\n{L:x}\r\n{INNER}\r\n0\r\n\r\n",
        [200],
        [("POST / HTTP/1.1", INNER)],
    ),
    ("get-with-body", f"{GET}{H}Content-Length: {L}\r\n\r\n{INNER}", [200], [("GET / HTTP/1.1", INNER)]),
    (
        "get-with-chunked-body",
        f"{GET}{H}{CHUNKED}\r\n{L:X}\r\n{INNER}\r\n0\r\n\r\n",
        [200],
        [("GET / HTTP/1.1", INNER)],
    ),
    (
        "delete-with-body-then-second",
        f"DELETE / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc{SECOND}",
        [200, 200],
        [("DELETE / HTTP/1.1", "abc"), ("GET /second HTTP/1.1", "")],
    ),
    (
        "options-with-body-then-second",
        f"OPTIONS / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc{SECOND}",
        [200, 200],
        [("OPTIONS / HTTP/1.1", "abc"), ("GET /second HTTP/1.1", "")],
    ),
    ("pipelined", f"{GET}{H}\r\n{SECOND}", [200, 200], [SEEN_GET, ("GET /second HTTP/1.1", "")]),
    (
        "length-zero-then-second",
        f"{POST}{H}Content-Length: 0\r\n\r\n{SECOND}",
        [200, 200],
        [("POST / HTTP/1.1", ""), ("GET /second HTTP/1.1", "")],
    ),
    (
        "last-chunk-then-second",
        f"{POST}{H}{CHUNKED}\r\n0\r\n\r\n{SECOND}",
        [200, 200],
        [("POST / HTTP/1.1", ""), ("GET /second HTTP/1.1", "")],
    ),
    (
        "post-without-length-then-second",
        f"{POST}{H}\r\n{SECOND}",
        [200, 200],
        [("POST / HTTP/1.1", ""), ("GET /second HTTP/1.1", "")],
    ),
    ("body-behind-get-is-no-request", f"{GET}{H}\r\nabc\r\n\r\n", [200, 400], [SEEN_GET]),
    ("crlf-between-requests", f"{GET}{H}\r\n\r\n{SECOND}", [200, 400], [SEEN_GET]),
    ("close-ends-it", f"{GET}{H}Connection: close\r\n\r\n{SECOND}", [200], [SEEN_GET]),
    ("close-in-a-list", f"{GET}{H}Connection: x, CLOSE\r\n\r\n{SECOND}", [200], [SEEN_GET]),
    ("close-twice", f"{GET}{H}Connection: x\r\nConnection: close\r\n\r\n{SECOND}", [200], [SEEN_GET]),
    ("1.0-keep-alive-is-not-kept", f"GET / HTTP/1.0\r\n{H}Connection: keep-alive\r\n\r\n{SECOND}", [200],
     [("GET / HTTP/1.0", "")]),
    ("1.0-with-length", f"POST / HTTP/1.0\r\n{H}Content-Length: 3\r\n\r\nabc", [200], [("POST / HTTP/1.0", "abc")]),
    ("refused-second", f"{GET}{H}\r\nGET / HTTP/1.1\r\n\r\n", [200, 400], [SEEN_GET]),
    (
        "refused-upgrade-ends-it",
        f"{GET}{H}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n{SECOND}",
        [200],
        [SEEN_GET],
    ),
    ("h2c-upgrade-is-an-ordinary-request", f"{GET}{H}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
     f"HTTP2-Settings: AAA\r\n\r\n{SECOND}", [200, 200], [SEEN_GET, ("GET /second HTTP/1.1", "")]),
    ("te-trailers-is-dropped", f"{GET}{H}TE: trailers\r\n\r\n", [200], [SEEN_GET]),
    ("nominated-length", f"{POST}{H}Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc", [400], []),
    ("nominated-coding", f"{POST}{H}Connection: transfer-encoding\r\n{CHUNKED}\r\n0\r\n\r\n", [400], []),
    ("nominated-underscore", f"{POST}{H}Connection: content_length\r\nContent-Length: 3\r\n\r\nabc", [400], []),
    ("length-and-underscore-length", f"{POST}{H}Content-Length: 3\r\nContent_Length: 3\r\n\r\nabc", [400], []),
    ("coding-and-underscore-coding", f"{POST}{H}{CHUNKED}Transfer_Encoding: x\r\n\r\n0\r\n\r\n", [400], []),
    ("length-and-coding-1.0", f"POST / HTTP/1.0\r\n{H}Content-Length: 3\r\n{CHUNKED}\r\n0\r\n\r\n", [400], []),
    ("length-and-identity", f"{POST}{H}Content-Length: 3\r\nTransfer-Encoding: identity\r\n\r\nabc", [400], []),
    ("length-in-folded-line", f"{POST}{H}X: y\r\n\tContent-Length: 3\r\n\r\nabc", [400], []),
    ("coding-in-folded-line", f"{POST}{H}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-behind-bare-cr", f"{POST}{H}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-behind-bare-lf", f"{POST}{H}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-behind-nul", f"{POST}{H}X: y\x00Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-trailing-comma", f"{POST}{H}Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-leading-comma", f"{POST}{H}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-empty", f"{POST}{H}Transfer-Encoding:\r\n\r\n", [400], []),
    ("coding-cow", f"{POST}{H}Transfer-Encoding: cow\r\n\r\n", [400], []),
    ("coding-form-feed", f"{POST}{H}Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-nbsp", f"{POST}{H}Transfer-Encoding:\xa0chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-nul-inside", f"{POST}{H}Transfer-Encoding: ch\x00unked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-name-nul", f"{POST}{H}Transfer-Encoding\x00: chunked\r\n\r\n0\r\n\r\n", [400], []),
    ("coding-name-in-quotes", f'{POST}{H}"Transfer-Encoding": chunked\r\n\r\n0\r\n\r\n', [400], []),
]  # fmt: skip

FRAMING: list[Row] = [
    ("length-tabs", f"{POST}{H}Content-Length:\t3\t\r\n\r\nabc", [200], SEEN_ABC),
    ("length-no-space", f"{POST}{H}Content-Length:3\r\n\r\nabc", [200], SEEN_ABC),
    ("length-name-case", f"{POST}{H}cONTENT-lENGTH: 3\r\n\r\nabc", [200], SEEN_ABC),
    ("length-eighteen-zeros", f"{POST}{H}Content-Length: {'0' * 17}3\r\n\r\nabc", [200], SEEN_ABC),
    ("length-nineteen-digits", f"{POST}{H}Content-Length: {'0' * 18}3\r\n\r\nabc", [400], []),
    ("length-float", f"{POST}{H}Content-Length: 3.0\r\n\r\nabc", [400], []),
    ("length-exponent", f"{POST}{H}Content-Length: 3e0\r\n\r\nabc", [400], []),
    ("length-underscored-number", f"{POST}{H}Content-Length: 1_0\r\n\r\nabcdefghij", [400], []),
    ("length-other-digits", f"{POST}{H}Content-Length: \xb3\r\n\r\nabc", [400], []),
    ("length-quoted", f'{POST}{H}Content-Length: "3"\r\n\r\nabc', [400], []),
    ("length-semicolon", f"{POST}{H}Content-Length: 3;a\r\n\r\nabc", [400], []),
    ("length-trailing-comma", f"{POST}{H}Content-Length: 3,\r\n\r\nabc", [400], []),
    ("length-on-head", f"HEAD / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc", [200], [("HEAD / HTTP/1.1", "abc")]),
    ("many-chunks", f"{POST}{H}{CHUNKED}\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", [200], SEEN_ABC),
    ("chunk-size-case", f"{POST}{H}{CHUNKED}\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", [200],
     [("POST / HTTP/1.1", "01234567890123456789")]),
    ("chunk-size-zeros", f"{POST}{H}{CHUNKED}\r\n000000000000003\r\nabc\r\n000\r\n\r\n", [200],
     SEEN_ABC),
    ("chunk-size-sixteen-digits", f"{POST}{H}{CHUNKED}\r\n0000000000000003\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-huge", f"{POST}{H}{CHUNKED}\r\nffffffffffffffff\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-plus", f"{POST}{H}{CHUNKED}\r\n+3\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-h", f"{POST}{H}{CHUNKED}\r\n3h\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-tab", f"{POST}{H}{CHUNKED}\r\n3\t\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-underscore", f"{POST}{H}{CHUNKED}\r\n0_3\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-nul", f"{POST}{H}{CHUNKED}\r\n3\x00\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-size-comma", f"{POST}{H}{CHUNKED}\r\n3,3\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-extension-256", f"{POST}{H}{CHUNKED}\r\n3;{'a' * 256}\r\nabc\r\n0\r\n\r\n", [200],
     SEEN_ABC),
    ("chunk-extension-257", f"{POST}{H}{CHUNKED}\r\n3;{'a' * 257}\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-extension-bare-lf", f"{POST}{H}{CHUNKED}\r\n3;a\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-extension-quoted-crlf", f'{POST}{H}{CHUNKED}\r\n3;a="\r\nabc\r\n0\r\n\r\n', [200],
     SEEN_ABC),
    ("chunk-data-short", f"{POST}{H}{CHUNKED}\r\n4\r\nabc\r\n0\r\n\r\n", [400], []),
    ("chunk-without-line-end", f"{POST}{H}{CHUNKED}\r\n3\r\nabc0\r\n\r\n", [400], []),
    ("chunk-end-lf-cr", f"{POST}{H}{CHUNKED}\r\n3\r\nabc\n\r0\r\n\r\n", [400], []),
    ("chunk-trailer-empty-name", f"{POST}{H}{CHUNKED}\r\n0\r\n: x\r\n\r\n", [400], []),
    ("chunk-trailer-folded", f"{POST}{H}{CHUNKED}\r\n0\r\n x\r\n\r\n", [400], []),
    ("chunk-last-with-extension", f"{POST}{H}{CHUNKED}\r\n3\r\nabc\r\n0;x\r\n\r\n", [200], SEEN_ABC),
    ("expect-without-body", f"{POST}{H}Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", [200],
     [("POST / HTTP/1.1", "")]),
    ("expect-case", f"{POST}{H}Expect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc", [200], SEEN_ABC),
    ("expect-list", f"{POST}{H}Expect: 100-continue, x\r\nContent-Length: 3\r\n\r\nabc", [417], []),
]  # fmt: skip

HOSTS: list[Row] = [
    ("upper-case", f"{GET}Host: HoSt\r\n\r\n", [200], [SEEN_GET]),
    ("port-zero", f"{GET}Host: HOST:0\r\n\r\n", [200], [SEEN_GET]),
    ("port-highest", f"{GET}Host: HOST:65535\r\n\r\n", [200], [SEEN_GET]),
    ("port-too-high", f"{GET}Host: HOST:65536\r\n\r\n", [400], []),
    ("port-empty", f"{GET}Host: HOST:\r\n\r\n", [400], []),
    ("port-negative", f"{GET}Host: HOST:-1\r\n\r\n", [400], []),
    ("two-ports", f"{GET}Host: HOST:80:80\r\n\r\n", [400], []),
    ("host-last", f"{GET}X: y\r\nHost: HOST\r\n\r\n", [200], [SEEN_GET]),
    ("host-underscore-field", f"{GET}Ho_st: x\r\n{H}\r\n", [200], [SEEN_GET]),
    ("host-tab", f"{GET}Host:\tHOST\t\r\n\r\n", [200], [SEEN_GET]),
    ("host-folded", f"{GET}Host:\r\n HOST\r\n\r\n", [400], []),
    ("host-nul", f"{GET}Host: HOST\x00\r\n\r\n", [400], []),
    ("host-quoted", f'{GET}Host: "HOST"\r\n\r\n', [400], []),
    ("host-semicolon", f"{GET}Host: HOST;a\r\n\r\n", [400], []),
    ("host-question", f"{GET}Host: HOST?a\r\n\r\n", [400], []),
    ("host-hash", f"{GET}Host: HOST#a\r\n\r\n", [400], []),
    ("host-backslash", f"{GET}Host: HOST\\a\r\n\r\n", [400], []),
    ("host-leading-dot", f"{GET}Host: .HOST\r\n\r\n", [400], []),
    ("host-leading-hyphen", f"{GET}Host: -HOST\r\n\r\n", [400], []),
    ("host-bracketed", f"{GET}Host: [HOST]\r\n\r\n", [400], []),
    ("host-ipv6-open", f"{GET}Host: [::1\r\n\r\n", [400], []),
    ("host-zone", f"{GET}Host: [fe80::1%25lo]\r\n\r\n", [400], []),
    ("host-254", f"{GET}Host: {'a.' * 127}a\r\n\r\n", [400], []),
    ("host-253", f"{GET}Host: {'a.' * 126}a\r\n\r\n", [404], []),
    ("host-two-labels", f"{GET}Host: a.HOST\r\n\r\n", [404], []),
    ("host-suffix", f"{GET}Host: HOST.example\r\n\r\n", [404], []),
    ("host-prefix-joined", f"{GET}Host: xHOSTx\r\n\r\n", [404], []),
    ("host-domain-alone", f"{GET}Host: localhost\r\n\r\n", [404], []),
    ("host-other", f"{GET}Host: example.com\r\n\r\n", [404], []),
    ("host-address", f"{GET}Host: 127.0.0.1\r\n\r\n", [404], []),
    ("host-decimal-address", f"{GET}Host: 2130706433\r\n\r\n", [404], []),
    ("host-ipv6", f"{GET}Host: [::1]:80\r\n\r\n", [404], []),
    ("host-underscore", f"{GET}Host: a_b.localhost\r\n\r\n", [404], []),
    ("host-label-hyphen-end", f"{GET}Host: a-.localhost\r\n\r\n", [404], []),
    ("host-label-64", f"{GET}Host: {'a' * 64}.localhost\r\n\r\n", [404], []),
    ("host-redis-key", f"{GET}Host: route:x.localhost\r\n\r\n", [400], []),
    ("absolute-with-port", "GET http://HOST:80/a HTTP/1.1\r\nHost: HOST:80\r\n\r\n", [200], [("GET /a HTTP/1.1", "")]),
    ("absolute-port-differs", "GET http://HOST:80/a HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("absolute-case", "GET HTTP://HoSt/a HTTP/1.1\r\nHost: HOST\r\n\r\n", [200], [("GET /a HTTP/1.1", "")]),
    ("absolute-no-host-field", "GET http://HOST/a HTTP/1.1\r\n\r\n", [400], []),
    ("absolute-empty-host", "GET http:///a HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("absolute-one-slash", "GET http:/HOST/a HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("absolute-ws", "GET ws://HOST/a HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("absolute-file", "GET file:///etc/passwd HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("absolute-backslash", "GET http://HOST\\@other/ HTTP/1.1\r\nHost: HOST\r\n\r\n", [400], []),
    ("double-slash-is-a-path", "GET //other/a HTTP/1.1\r\nHost: HOST\r\n\r\n", [200], [("GET //other/a HTTP/1.1", "")]),
    ("x-forwarded-host-routes-nothing", f"{GET}{H}X-Forwarded-Host: other.localhost\r\n\r\n", [200], [SEEN_GET]),
    ("x-host-routes-nothing", f"{GET}{H}X-Host: other.localhost\r\n\r\n", [200], [SEEN_GET]),
]  # fmt: skip

LINES: list[Row] = [
    ("dots-stay", f"GET /a/../../b HTTP/1.1\r\n{H}\r\n", [200], [("GET /a/../../b HTTP/1.1", "")]),
    ("percent-stays", f"GET /%2e%2E/%00%zz HTTP/1.1\r\n{H}\r\n", [200], [("GET /%2e%2E/%00%zz HTTP/1.1", "")]),
    ("backslash-stays", f"GET /a\\b HTTP/1.1\r\n{H}\r\n", [200], [("GET /a\\b HTTP/1.1", "")]),
    ("query-only", f"GET ?a HTTP/1.1\r\n{H}\r\n", [400], []),
    ("asterisk-get", f"GET * HTTP/1.1\r\n{H}\r\n", [400], []),
    ("authority-get", f"GET HOST:80 HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-32", f"{'A' * 32} / HTTP/1.1\r\n{H}\r\n", [200], [(f"{'A' * 32} / HTTP/1.1", "")]),
    ("method-33", f"{'A' * 33} / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-digit", f"GET1 / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-mixed", f"Get / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-nul", f"GE\x00T / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-hyphen-first", f"-GET / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("method-colon", f"GET: / HTTP/1.1\r\n{H}\r\n", [400], []),
    ("version-none", f"GET / \r\n{H}\r\n", [400], []),
    ("version-1", f"GET / HTTP/1\r\n{H}\r\n", [400], []),
    ("version-0.9", f"GET / HTTP/0.9\r\n{H}\r\n", [505], []),
    ("version-3.0", f"GET / HTTP/3.0\r\n{H}\r\n", [505], []),
    ("version-plus", f"GET / HTTP/+1.1\r\n{H}\r\n", [400], []),
    ("version-icap", f"GET / ICAP/1.0\r\n{H}\r\n", [400], []),
    ("version-space", f"GET / HTTP /1.1\r\n{H}\r\n", [400], []),
    ("line-tab-end", f"GET / HTTP/1.1\t\r\n{H}\r\n", [400], []),
    ("line-cr-cr-lf", f"GET / HTTP/1.1\r\r\n{H}\r\n", [400], []),
    ("target-nul", f"GET /\x00 HTTP/1.1\r\n{H}\r\n", [400], []),
    ("target-delete", f"GET /\x7f HTTP/1.1\r\n{H}\r\n", [400], []),
    ("target-vertical-tab", f"GET /\x0b HTTP/1.1\r\n{H}\r\n", [400], []),
    ("line-8192", f"GET /{'a' * 8178} HTTP/1.1\r\n{H}\r\n", [200], [(f"GET /{'a' * 8178} HTTP/1.1", "")]),
    ("line-8193", f"GET /{'a' * 8179} HTTP/1.1\r\n{H}\r\n", [414], []),
    ("fields-100", f"{GET}{H}" + "X: y\r\n" * 99 + "\r\n", [200], [SEEN_GET]),
    ("fields-101", f"{GET}{H}" + "X: y\r\n" * 100 + "\r\n", [431], []),
    ("value-30000", f"{GET}{H}X: {'y' * 30000}\r\n\r\n", [200], [SEEN_GET]),
    ("name-long", f"{GET}{H}{'x' * 30000}: y\r\n\r\n", [200], [SEEN_GET]),
    ("head-above-32-kib", f"{GET}{H}" + f"X: {'y' * 990}\r\n" * 34 + "\r\n", [431], []),
    ("value-escape", f"{GET}{H}X: \x1b[2J\r\n\r\n", [400], []),
    ("value-next-line", f"{GET}{H}X: a\x85b\r\n\r\n", [200], [SEEN_GET]),
    ("name-utf8", f"{GET}{H}X\xc3\xa9: y\r\n\r\n", [400], []),
    ("name-slash", f"{GET}{H}X/Y: z\r\n\r\n", [400], []),
    ("name-at", f"{GET}{H}X@Y: z\r\n\r\n", [400], []),
    ("line-end-cr-cr-lf", f"{GET}{H}X: y\r\r\n\r\n", [400], []),
    ("head-end-lf-lf", f"{GET}{H}X: y\n\n", [400], []),
    ("head-end-cr-cr", f"{GET}{H}X: y\r\r", [400], []),
]  # fmt: skip

ROWS = [*SMUGGLING, *FRAMING, *HOSTS, *LINES]


def test_there_are_enough_rows_and_no_name_stands_for_two() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 150


@pytest.fixture
async def host(redis: Redis) -> AsyncIterator[tuple[str, Origin]]:
    """A preview's host name of always the same length, and the origin it leads to."""
    async with origin() as vm:
        label = f"row{next(_numbers):05}"
        await redis.set(key_of(label), encode(ready_route(vm.port)))
        yield f"{label}.localhost", vm


@pytest.mark.parametrize(("wire", "statuses", "seen"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_request_has_exactly_this_outcome(
    port: int, host: tuple[str, Origin], wire: str, statuses: list[int], seen: list[tuple[str, str]]
) -> None:
    name, vm = host
    async with visitor(port) as client:
        await client.send(wire.replace("HOST", name).replace("HoSt", name.title()).encode("latin-1"))
        answers = [await client.answer(bodyless=wire.startswith("HEAD")) for _ in statuses]
        client.writer.write_eof()
        end = await client.rest()

    assert ([answer.status for answer in answers], end) == (statuses, b"")
    assert [(m.line, m.body.decode("latin-1").replace(name, "HOST")) for m in vm.requests] == seen
