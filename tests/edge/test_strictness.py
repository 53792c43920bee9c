"""Requests that two servers could read differently: each is refused by the running edge, and no origin sees a byte."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.edge.conftest import Announce, EdgeProcess, ready_route
from tests.edge.wire import Reader, Writer, origin, read_message, visitor


@pytest.fixture
def port(edge_by_reader: EdgeProcess, redis: Redis) -> int:
    """These tests run with both forms of the reader of plain heads."""
    return edge_by_reader.port


BIG = "a" * 33000
MANY = "".join(f"X-{n}: 1\r\n" for n in range(101))
CHUNKED = "Transfer-Encoding: chunked\r\n"

# (name, expected status, request); HOST stands for the preview's host name.
REFUSED = [
    # Framing: two lengths, or none that is certain.
    ("length-and-chunked", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n" + CHUNKED + "\r\n0\r\n\r\n"),
    ("chunked-and-length", 400, "POST / HTTP/1.1\r\nHost: HOST\r\n" + CHUNKED + "Content-Length: 4\r\n\r\n0\r\n\r\n"),
    ("length-twice", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    ("length-twice-equal", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
    ("length-list", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4, 4\r\n\r\nabcd"),
    ("length-plus", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +4\r\n\r\nabcd"),
    ("length-minus", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -4\r\n\r\nabcd"),
    ("length-hex", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x4\r\n\r\nabcd"),
    ("length-empty", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length:\r\n\r\nabcd"),
    ("length-inner-space", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1 4\r\n\r\nabcd"),
    ("length-too-long", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 9999999999999999999\r\n\r\n"),
    ("length-underscore", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nContent_Length: 4\r\n\r\nabcd"),
    ("coding-underscore", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("coding-twice", 400, "POST / HTTP/1.1\r\nHost: HOST\r\n" + CHUNKED + CHUNKED + "\r\n0\r\n\r\n"),
    ("coding-list", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("coding-identity", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("coding-quoted", 400, 'POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("coding-parameter", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    ("coding-x", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("coding-vertical-tab", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("coding-space-before-colon", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("coding-folded", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("coding-on-1.0", 400, "POST / HTTP/1.0\r\nHost: HOST\r\n" + CHUNKED + "\r\n0\r\n\r\n"),
    ("trailer-announced", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nTrailer: X\r\n" + CHUNKED + "\r\n0\r\n\r\n"),
    ("connection-names-length", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nConnection: content-length\r\n\r\n"),
    ("connection-names-host", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close, Host\r\n\r\n"),
    # Lines and fields.
    ("bare-lf-line", 400, "GET / HTTP/1.1\nHost: HOST\r\n\r\n"),
    ("bare-lf-field", 400, "GET / HTTP/1.1\r\nHost: HOST\nX: y\r\n\r\n"),
    ("bare-lf-everywhere", 400, "GET / HTTP/1.1\nHost: HOST\n\n"),
    ("bare-cr-in-value", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\rb\r\n\r\n"),
    ("nul-in-value", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\n\r\n"),
    ("delete-in-value", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\x7fb\r\n\r\n"),
    ("folded", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n"),
    ("folded-first", 400, "GET / HTTP/1.1\r\n X: a\r\nHost: HOST\r\n\r\n"),
    ("no-colon", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nnonsense\r\n\r\n"),
    ("empty-name", 400, "GET / HTTP/1.1\r\nHost: HOST\r\n: x\r\n\r\n"),
    ("space-in-name", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX Y: z\r\n\r\n"),
    ("space-before-colon", 400, "GET / HTTP/1.1\r\nHost : HOST\r\n\r\n"),
    ("tab-before-colon", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nX\t: z\r\n\r\n"),
    ("brackets-in-name", 400, "GET / HTTP/1.1\r\nHost: HOST\r\n(X): z\r\n\r\n"),
    ("leading-crlf", 400, "\r\nGET / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("leading-space", 400, " GET / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    # Request line.
    ("http-0.9", 400, "GET /\r\n\r\n"),
    ("http-0.9-host", 400, "GET /\r\nHost: HOST\r\n\r\n"),
    ("http-2.0", 505, "GET / HTTP/2.0\r\nHost: HOST\r\n\r\n"),
    ("http-1.2", 505, "GET / HTTP/1.2\r\nHost: HOST\r\n\r\n"),
    ("http-1.10", 400, "GET / HTTP/1.10\r\nHost: HOST\r\n\r\n"),
    ("http-01.1", 400, "GET / HTTP/01.1\r\nHost: HOST\r\n\r\n"),
    ("http-lower", 400, "GET / http/1.1\r\nHost: HOST\r\n\r\n"),
    ("h2-preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("two-spaces", 400, "GET  / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("space-in-target", 400, "GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("tab-between", 400, "GET\t/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("trailing-space", 400, "GET / HTTP/1.1 \r\nHost: HOST\r\n\r\n"),
    ("fragment", 400, "GET /a#b HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-bytes", 400, "GET /\xff HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-relative", 400, "GET a HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-asterisk", 400, "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-other-host", 400, "GET http://other.localhost/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-userinfo", 400, "GET http://a@HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("target-https", 400, "GET https://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("method-lower", 400, "get / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("method-empty", 400, " / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("method-long", 400, "G" * 40 + " / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("connect", 400, "CONNECT HOST:80 HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("connect-path", 405, "CONNECT / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("trace", 405, "TRACE / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("tls-hello", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    # Hosts.
    ("host-missing", 400, "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    ("host-missing-1.0", 400, "GET / HTTP/1.0\r\n\r\n"),
    ("host-empty", 400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("host-twice", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n"),
    ("host-twice-other", 400, "GET / HTTP/1.1\r\nHost: HOST\r\nhost: other\r\n\r\n"),
    ("host-list", 400, "GET / HTTP/1.1\r\nHost: HOST, other\r\n\r\n"),
    ("host-userinfo", 400, "GET / HTTP/1.1\r\nHost: a@HOST\r\n\r\n"),
    ("host-path", 400, "GET / HTTP/1.1\r\nHost: HOST/x\r\n\r\n"),
    ("host-scheme", 400, "GET / HTTP/1.1\r\nHost: http://HOST\r\n\r\n"),
    ("host-trailing-dot", 400, "GET / HTTP/1.1\r\nHost: HOST.\r\n\r\n"),
    ("host-two-dots", 400, "GET / HTTP/1.1\r\nHost: a..localhost\r\n\r\n"),
    ("host-port-text", 400, "GET / HTTP/1.1\r\nHost: HOST:http\r\n\r\n"),
    ("host-port-long", 400, "GET / HTTP/1.1\r\nHost: HOST:808080\r\n\r\n"),
    ("host-space", 400, "GET / HTTP/1.1\r\nHost: HOST other\r\n\r\n"),
    ("host-bytes", 400, "GET / HTTP/1.1\r\nHost: \xe9HOST\r\n\r\n"),
    ("host-percent", 400, "GET / HTTP/1.1\r\nHost: %41HOST\r\n\r\n"),
    # Limits and expectations.
    ("line-too-long", 414, "GET /" + BIG + " HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("head-too-long", 431, "GET / HTTP/1.1\r\nHost: HOST\r\nX: " + BIG + "\r\n\r\n"),
    ("too-many-fields", 431, "GET / HTTP/1.1\r\nHost: HOST\r\n" + MANY + "\r\n"),
    ("expect-other", 417, "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx"),
    ("expect-obfuscated", 417, "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: y 100-continue\r\nContent-Length: 1\r\n\r\nx"),
    ("expect-empty", 417, "POST / HTTP/1.1\r\nHost: HOST\r\nExpect:\r\nContent-Length: 1\r\n\r\nx"),
    ("expect-twice", 400, "POST / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "request_text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_ambiguous_request_is_refused_and_reaches_no_origin(
    port: int, announce: Announce, status: int, request_text: str
) -> None:
    async with origin() as vm, visitor(port) as attacker:
        host = f"{await announce(ready_route(vm.port))}.localhost"
        # A second request behind the first one: it must not be served on a connection that lost its framing.
        smuggled = f"GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
        await attacker.send((request_text.replace("HOST", host) + smuggled).encode("latin-1"))
        answer = await attacker.answer()
        end = await attacker.rest()

    assert answer.status == status
    assert answer["connection"] == "close"
    assert end == b""
    assert vm.connections == 0


BAD_BODIES = {
    "size-space": "5 \r\nhello\r\n0\r\n\r\n",
    "size-leading-space": " 5\r\nhello\r\n0\r\n\r\n",
    "size-0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "size-minus": "-5\r\nhello\r\n0\r\n\r\n",
    "size-empty": "\r\nhello\r\n0\r\n\r\n",
    "size-overflow": "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-bare-lf": "5\nhello\r\n0\r\n\r\n",
    "data-too-long": "5\r\nhellox\r\n0\r\n\r\n",
    "data-bare-lf": "5\r\nhello\n0\r\n\r\n",
    "end-bare-lf": "5\r\nhello\r\n0\r\n\n",
    "end-bare-cr": "5\r\nhello\r\n0\r\n\rX",
    "trailer": "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "extension-long": "5;" + "a" * 300 + "\r\nhello\r\n0\r\n\r\n",
    "extension-control": "5;a=\x01\r\nhello\r\n0\r\n\r\n",
    "extension-cr": "5;a=\rb\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=list(BAD_BODIES))
async def test_malformed_chunks_end_the_exchange_and_no_origin_takes_the_body_for_whole(
    port: int, announce: Announce, body: str
) -> None:
    async with origin() as vm, visitor(port) as attacker:
        host = f"{await announce(ready_route(vm.port))}.localhost"
        await attacker.send(f"POST / HTTP/1.1\r\nHost: {host}\r\n{CHUNKED}\r\n{body}".encode())
        answer = await attacker.answer()
        end = await attacker.rest()

    assert (answer.status, end) == (400, b"")
    assert vm.requests == []


ACCEPTED = {
    "absolute": ("GET http://HOST/a?b HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /a?b HTTP/1.1"),
    "absolute-no-path": ("GET http://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET / HTTP/1.1"),
    "absolute-query": ("GET http://HOST?x HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /?x HTTP/1.1"),
    "port": ("GET / HTTP/1.1\r\nHost: HOST:8080\r\n\r\n", "GET / HTTP/1.1"),
    "odd-path": ('GET //a/../%00?<>|{}"\\^` HTTP/1.1\r\nHost: HOST\r\n\r\n', 'GET //a/../%00?<>|{}"\\^` HTTP/1.1'),
    "latin-value": ("GET / HTTP/1.1\r\nHost: HOST\r\nX: \xe9\r\n\r\n", "GET / HTTP/1.1"),
    "empty-value": ("GET / HTTP/1.1\r\nHost: HOST\r\nX:\r\n\r\n", "GET / HTTP/1.1"),
    "tab-value": ("GET / HTTP/1.1\r\nHost:\tHOST\t\r\nX:\ta\tb\t\r\n\r\n", "GET / HTTP/1.1"),
    "length-zeros": ("POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0003\r\n\r\nabc", "POST / HTTP/1.1"),
    "coding-case": (
        'POST / HTTP/1.1\r\nHost: HOST\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3;x="y"\r\nabc\r\n00\r\n\r\n',
        "POST / HTTP/1.1",
    ),
    "h2c-upgrade": (
        "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
        "GET / HTTP/1.1",
    ),
    "webdav": ("PROPFIND / HTTP/1.1\r\nHost: HOST\r\n\r\n", "PROPFIND / HTTP/1.1"),
    "hyphen-method": ("M-SEARCH / HTTP/1.1\r\nHost: HOST\r\n\r\n", "M-SEARCH / HTTP/1.1"),
}


@pytest.mark.parametrize(("request_text", "line"), ACCEPTED.values(), ids=list(ACCEPTED))
async def test_unusual_but_clear_request_is_forwarded(
    port: int, announce: Announce, request_text: str, line: str
) -> None:
    async with origin() as vm, visitor(port) as browser:
        host = f"{await announce(ready_route(vm.port))}.localhost"
        answer = await browser.ask(request_text.replace("HOST", host).encode("latin-1"))

    assert answer.status == 200
    assert vm.requests[0].line == line
    assert vm.requests[0]["upgrade"] is None


OURS = (
    *("X-Stagely-PR", "X-Stagely-Project", "X-Stagely-Team", "X-Stagely-Anything", "X-Forwarded-For", "X-Real-IP"),
    *("X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded", "Forwarded"),
)
SPELLINGS = [
    spelled
    for name in OURS
    for mark in "-_.~!|"
    for spelled in (name.replace("-", mark), name.replace("-", mark).upper(), name.lower().replace("-", mark, 1))
] + ["Proxy", "Proxy-Authorization", "proxy_connection", "x-StAgElY-pR", "X_Stagely-Team", "X-Stagely_Team"]


def test_there_are_enough_spellings() -> None:
    assert len(set(SPELLINGS)) >= 150


@pytest.mark.parametrize("nominated", [False, True], ids=["plain", "nominated"])
async def test_no_look_alike_reaches_the_origin(port: int, announce: Announce, nominated: bool) -> None:
    async with origin() as vm, visitor(port) as attacker:
        host = f"{await announce(ready_route(vm.port))}.localhost"
        for name in SPELLINGS:
            connection = f"Connection: {name}\r\n" if nominated else ""
            await attacker.ask(
                f"GET / HTTP/1.1\r\n{name}: evil\r\nHost: {host}\r\n{connection}{name}: evil\r\n\r\n".encode()
            )

    assert len(vm.requests) == len(SPELLINGS)
    assert [message.raw for message in vm.requests if b"evil" in message.raw] == []
    assert {message["x-stagely-pr"] for message in vm.requests} == {"7"}
    assert {message["x-forwarded-for"] for message in vm.requests} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "domain",
    [
        "Domain=localhost",
        "domain=.localhost",
        "DOMAIN = LOCALHOST",
        "Domain=a.localhost",
        "Domain",
        "Domain=",
        "\tDomain=x",
    ],
)
async def test_cookie_of_a_preview_stays_on_its_host(port: int, announce: Announce, domain: str) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(f"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; {domain}; Path=/\r\nContent-Length: 0\r\n\r\n".encode())
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        host = f"{await announce(ready_route(vm.port))}.localhost"
        answer = await browser.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert answer.all("set-cookie") == ["a=b; Path=/"]
    assert answer["x-robots-tag"] == "noindex, nofollow"
