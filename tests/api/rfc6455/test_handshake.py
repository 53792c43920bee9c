"""The opening handshake. Source: RFC 6455 sections 4.1 and 4.2.1, RFC 9112 sections 2, 3, 5 and 6."""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import (
    KEY,
    PING,
    TEXT,
    accept_of,
    ask,
    bytewise,
    close,
    connected,
    dialled,
    frame,
    head,
    instead,
    parse_frames,
    parse_head,
    ping,
    request,
    text,
)

GOOD = {
    "plain": request(),
    "query": request(path="/v1/agent/connect?a=b"),
    "upgrade-mixed-case": instead("Upgrade", "WebSocket"),
    "upgrade-upper-case": instead("Upgrade", "WEBSOCKET"),
    "connection-lower-case": instead("Connection", "upgrade"),
    "connection-upper-case": instead("Connection", "UPGRADE"),
    "connection-last-of-two": instead("Connection", "keep-alive, Upgrade"),
    "connection-first-of-two": instead("Connection", "Upgrade, keep-alive"),
    "connection-no-space": instead("Connection", "keep-alive,Upgrade"),
    "connection-tab": instead("Connection", "keep-alive,\tUpgrade"),
    "connection-empty-items": instead("Connection", ", ,Upgrade,"),
    "connection-two-headers": instead("Connection", "keep-alive", "Upgrade"),
    "host-port": instead("Host", "gateway.example:8443"),
    "host-empty-port": instead("Host", "gateway.example:"),
    "host-ipv4": instead("Host", "192.0.2.7"),
    "host-ipv4-port": instead("Host", "192.0.2.7:80"),
    "host-ipv6": instead("Host", "[2001:db8::7]"),
    "host-ipv6-port": instead("Host", "[::1]:8001"),
    "host-upper-case": instead("Host", "GATEWAY.EXAMPLE"),
    "host-underscore": instead("Host", "agent_gateway"),
    "host-lower-case-name": request("host: a", without="Host"),
    "host-many-spaces": request("Host:    a   ", without="Host"),
    "host-no-space": request("Host:a", without="Host"),
    "host-tab": request("Host:\ta\t", without="Host"),
    "names-upper-case": request(f"SEC-WEBSOCKET-KEY: {KEY}", without="Sec-WebSocket-Key"),
    "names-lower-case": request("sec-websocket-version: 13", without="Sec-WebSocket-Version"),
    "version-spaces": instead("Sec-WebSocket-Version", "  13  "),
    "key-spaces": instead("Sec-WebSocket-Key", f"  {KEY}  "),
    "content-length-0": request("Content-Length: 0"),
    "unknown-header": request("X-Anything: at all"),
    "empty-header": request("X-Nothing:"),
    "latin-1-header": request("X-Name: J\xfcrgen"),
    "colon-in-value": request("X-Time: 12:30:00"),
    "cookie": request("Cookie: a=b", "User-Agent: test"),
    "authorization": request("Authorization: Bearer abc"),
    "128-headers": request(*[f"X-{n}: a" for n in range(123)]),
    "long-header": request("X-Long: " + "a" * 8000),
    "long-query": request(path="/v1/agent/connect?" + "a" * 8000),
}

REFUSED = {
    "method-post": (request(method="POST"), 405),
    "method-put": (request(method="PUT"), 405),
    "method-head": (request(method="HEAD"), 405),
    "method-options": (request(method="OPTIONS"), 405),
    "method-delete": (request(method="DELETE"), 405),
    "method-patch": (request(method="PATCH"), 405),
    "method-trace": (request(method="TRACE"), 405),
    "method-lower-case": (request(method="get"), 405),
    "method-unknown": (request(method="AGENT"), 405),
    "method-two-words": (request(method="GET GET"), 400),
    "method-empty": (request(method=""), 405),
    "method-leading-space": (request(method=" GET"), 400),
    "http-1.0": (request(version="HTTP/1.0"), 505),
    "http-0.9": (request(version="HTTP/0.9"), 400),
    "http-1.2": (request(version="HTTP/1.2"), 400),
    "http-2.0": (request(version="HTTP/2.0"), 400),
    "http-lower-case": (request(version="http/1.1"), 400),
    "http-space-behind": (request(version="HTTP/1.1 "), 400),
    "http-missing": (request().replace(b" HTTP/1.1", b"", 1), 400),
    "http-other": (request(version="HTTPS/1.1"), 400),
    "http-empty": (request(version=""), 400),
    "host-missing": (request(without="Host"), 400),
    "host-empty": (instead("Host", ""), 400),
    "host-twice": (instead("Host", "a", "b"), 400),
    "host-twice-same": (instead("Host", "a", "a"), 400),
    "host-twice-other-case": (request("HOST: gateway.example"), 400),
    "host-thrice": (instead("Host", "a", "a", "a"), 400),
    "host-list": (instead("Host", "a, b"), 400),
    "host-space": (instead("Host", "a b"), 400),
    "host-url": (instead("Host", "http://a"), 400),
    "host-path": (instead("Host", "a/b"), 400),
    "host-user": (instead("Host", "me@a"), 400),
    "host-query": (instead("Host", "a?b"), 400),
    "host-letters-as-port": (instead("Host", "a:b"), 400),
    "host-long-port": (instead("Host", "a:123456"), 400),
    "host-two-ports": (instead("Host", "a:1:2"), 400),
    "host-only-port": (instead("Host", ":80"), 400),
    "host-bare-ipv6": (instead("Host", "2001:db8::7"), 400),
    "host-open-bracket": (instead("Host", "[::1"), 400),
    "host-empty-brackets": (instead("Host", "[]"), 400),
    "host-latin-1": (instead("Host", "b\xfccher.example"), 400),
    "host-quoted": (instead("Host", '"a"'), 400),
    "upgrade-missing": (request(without="Upgrade"), 426),
    "upgrade-empty": (instead("Upgrade", ""), 400),
    "upgrade-other": (instead("Upgrade", "h2c"), 426),
    "upgrade-plural": (instead("Upgrade", "websockets"), 426),
    "upgrade-shorter": (instead("Upgrade", "websocke"), 426),
    "upgrade-version": (instead("Upgrade", "websocket/13"), 426),
    "upgrade-two-words": (instead("Upgrade", "web socket"), 400),
    "upgrade-two": (instead("Upgrade", "websocket, h2c"), 426),
    "upgrade-twice": (instead("Upgrade", "websocket", "websocket"), 426),
    "upgrade-quoted": (instead("Upgrade", '"websocket"'), 400),
    "connection-missing": (request(without="Connection"), 426),
    "connection-empty": (instead("Connection", ""), 400),
    "connection-close": (instead("Connection", "close"), 426),
    "connection-keep-alive": (instead("Connection", "keep-alive"), 426),
    "connection-longer": (instead("Connection", "Upgraded"), 426),
    "connection-two-words": (instead("Connection", "Up grade"), 400),
    "connection-semicolon": (instead("Connection", "keep-alive; Upgrade"), 400),
    "key-missing": (request(without="Sec-WebSocket-Key"), 400),
    "key-empty": (instead("Sec-WebSocket-Key", ""), 400),
    "key-twice": (instead("Sec-WebSocket-Key", KEY, KEY), 400),
    "key-two-different": (instead("Sec-WebSocket-Key", KEY, "AAAAAAAAAAAAAAAAAAAAAA=="), 400),
    "key-15-bytes": (instead("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA"), 400),
    "key-17-bytes": (instead("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA="), 400),
    "key-1-byte": (instead("Sec-WebSocket-Key", "AA=="), 400),
    "key-32-bytes": (instead("Sec-WebSocket-Key", "A" * 43 + "="), 400),
    "key-unpadded": (instead("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA"), 400),
    "key-half-padded": (instead("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA="), 400),
    "key-over-padded": (instead("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==="), 400),
    "key-url-alphabet": (instead("Sec-WebSocket-Key", "-_-_-_-_-_-_-_-_-_-_-w=="), 400),
    "key-space-within": (instead("Sec-WebSocket-Key", "AAAAAAAAAAA AAAAAAAAAAA=="), 400),
    "key-no-base64": (instead("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!!!"), 400),
    "key-latin-1": (instead("Sec-WebSocket-Key", "\xc4AAAAAAAAAAAAAAAAAAAAA=="), 400),
    "key-list": (instead("Sec-WebSocket-Key", f"{KEY}, {KEY}"), 400),
    "version-missing": (request(without="Sec-WebSocket-Version"), 400),
    "version-empty": (instead("Sec-WebSocket-Version", ""), 400),
    "version-8": (instead("Sec-WebSocket-Version", "8"), 400),
    "version-7": (instead("Sec-WebSocket-Version", "7"), 400),
    "version-0": (instead("Sec-WebSocket-Version", "0"), 400),
    "version-12": (instead("Sec-WebSocket-Version", "12"), 400),
    "version-14": (instead("Sec-WebSocket-Version", "14"), 400),
    "version-255": (instead("Sec-WebSocket-Version", "255"), 400),
    "version-list": (instead("Sec-WebSocket-Version", "13, 8"), 400),
    "version-twice": (instead("Sec-WebSocket-Version", "13", "13"), 400),
    "version-twice-different": (instead("Sec-WebSocket-Version", "13", "8"), 400),
    "version-leading-zero": (instead("Sec-WebSocket-Version", "013"), 400),
    "version-sign": (instead("Sec-WebSocket-Version", "+13"), 400),
    "version-fraction": (instead("Sec-WebSocket-Version", "13.0"), 400),
    "version-word": (instead("Sec-WebSocket-Version", "thirteen"), 400),
    "body": (request("Content-Length: 5") + b"hello", 400),
    "body-one-byte": (request("Content-Length: 1") + b"x", 400),
    "body-missing": (request("Content-Length: 5"), 400),
    "body-negative": (request("Content-Length: -1"), 400),
    "body-letters": (request("Content-Length: abc"), 400),
    "body-two-lengths": (request("Content-Length: 0", "Content-Length: 5") + b"hello", 400),
    "body-chunked": (request("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "body-identity": (request("Transfer-Encoding: identity"), 400),
    "body-chunked-and-length": (request("Transfer-Encoding: chunked", "Content-Length: 0") + b"0\r\n\r\n", 400),
    "line-feeds-only": (request().replace(b"\r\n", b"\n"), 400),
    "one-line-feed": (request().replace(b"\r\n", b"\n", 1), 400),
    "blank-line-before": (b"\r\n" + request(), 400),
    "header-without-colon": (request("Nonsense"), 400),
    "header-space-before-colon": (request("X-Name : a"), 400),
    "header-without-name": (request(": a"), 400),
    "header-two-words": (request("X Name: a"), 400),
    "header-name-latin-1": (request("X-N\xe4me: a"), 400),
    "header-folded": (request("X-Name: a", " b"), 400),
    "header-folded-by-tab": (request("X-Name: a", "\tb"), 400),
    "header-nul": (request("X-Name: a\x00b"), 400),
    "header-carriage-return": (request("X-Name: a\rb"), 400),
    "header-escape": (request("X-Name: a\x1bb"), 400),
    "header-delete": (request("X-Name: a\x7fb"), 400),
    "line-one-word": (b"GET\r\n\r\n", 400),
    "line-empty": (b"\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "http-2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "path-root": (request(path="/"), 404),
    "path-shorter": (request(path="/v1/agent"), 404),
    "path-slash-behind": (request(path="/v1/agent/connect/"), 404),
    "path-slashes": (request(path="//v1/agent/connect"), 404),
    "path-upper-case": (request(path="/V1/AGENT/CONNECT"), 404),
    "path-escaped": (request(path="/v1%2fagent/connect"), 404),
    "path-dots": (request(path="/v1/x/../agent/connect"), 404),
    "path-fragment": (request(path="/v1/agent/connect#a"), 404),
    "path-absolute": (request(path="http://gateway.example/v1/agent/connect"), 404),
    "path-star": (request(path="*"), 404),
    "path-latin-1": (request(path="/v1/agent/connect?\xe9"), 400),
    "path-empty": (request(path=""), 404),
    "origin": (request("Origin: https://gateway.example"), 403),
    "origin-null": (request("Origin: null"), 403),
    "origin-empty": (request("Origin:"), 403),
    "origin-twice": (request("Origin: a", "Origin: b"), 403),
    "subprotocol-no-token": (request("Sec-WebSocket-Protocol: a b"), 400),
    "subprotocol-empty": (request("Sec-WebSocket-Protocol:"), 400),
    "line-too-long": (request(path="/v1/agent/connect?" + "a" * 8200), 414),
    "line-without-end": (b"GET /" + b"a" * 300_000, 414),
    "header-too-long": (request("X-Long: " + "a" * 8200), 431),
    "header-without-end": (request()[:-2] + b"X-Long: " + b"a" * 300_000, 431),
    "129-headers": (request(*[f"X-{n}: a" for n in range(124)]), 431),
    "10000-headers": (request(*[f"X-{n}: a" for n in range(10_000)]), 431),
}

VERSIONED = [name for name, (_, status) in REFUSED.items() if name.startswith("version-") or status == 426]

PIPELINED = {
    "close": (close(1000), [("close", 1000)]),
    "ping": (ping("a") + close(), [("pong", b"a"), ("close", 1000)]),
    "two-pings": (ping("a") + ping("b") + close(), [("pong", b"a"), ("pong", b"b"), ("close", 1000)]),
    "text": (text("hello") + close(), [("text", b"hello"), ("close", 1000)]),
    "text-and-ping": (text("hello") + ping("a") + close(), [("text", b"hello"), ("pong", b"a"), ("close", 1000)]),
    "large-text": (text("x" * 200_000) + close(), [("text", b"x" * 200_000), ("close", 1000)]),
    "reserved-bit": (b"\xc1", [("close", 1002)]),
    "reserved-opcode": (frame(3), [("close", 1002)]),
    "unmasked": (frame(TEXT, "a", mask=None), [("close", 1002)]),
    "length-not-minimal": (head(TEXT, 1, form=2), [("close", 1002)]),
    "another-request": (request(), [("close", 1002)]),
}


@pytest.mark.parametrize("stream", GOOD.values(), ids=GOOD)
def test_good_request_opens(port: int, stream: bytes) -> None:
    with dialled(port) as peer:
        peer.send([stream])
        answer = parse_head(peer.read_head())
        peer.send([text("hello"), close()])
        rest = parse_frames(peer.read_rest())

    assert answer.status == 101
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["connection"] == "Upgrade"
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert rest[0] == (TEXT, b"hello")


@pytest.mark.parametrize(
    "key",
    ["AAAAAAAAAAAAAAAAAAAAAA==", "/////////////////////w==", "x3JJHMbDL1EzLkh9GBhXDw==", "AQIDBAUGBwgJCgsMDQ4PEA=="],
)
def test_key_is_answered_by_its_hash(port: int, key: str) -> None:
    answer = ask(port, [instead("Sec-WebSocket-Key", key), close()])

    assert answer.head is not None
    assert answer.head.headers["sec-websocket-accept"] == accept_of(key)


@pytest.mark.parametrize(
    "offer",
    [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, permessage-bzip2",
        "Sec-WebSocket-Extensions: x-webkit-deflate-frame",
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Protocol: chat, superchat",
    ],
)
def test_what_is_offered_is_not_taken(port: int, offer: str) -> None:
    answer = ask(port, [request(offer), close()])

    assert answer.head is not None
    assert answer.head.status == 101
    assert {"sec-websocket-extensions", "sec-websocket-protocol"}.isdisjoint(answer.head.headers)


@pytest.mark.parametrize(("stream", "status"), REFUSED.values(), ids=REFUSED)
def test_bad_request_is_refused(port: int, stream: bytes, status: int) -> None:
    answer = ask(port, [stream])

    assert answer.status == status


@pytest.mark.parametrize("name", VERSIONED)
def test_refusal_says_which_version_would_do(port: int, name: str) -> None:
    answer = ask(port, [REFUSED[name][0]])

    assert answer.head is not None
    assert answer.head.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("name", ["upgrade-missing", "upgrade-other", "connection-missing"])
def test_refusal_for_want_of_an_upgrade_names_it(port: int, name: str) -> None:
    answer = ask(port, [REFUSED[name][0]])

    assert answer.head is not None
    assert answer.head.headers["upgrade"] == "websocket"


def test_refusal_of_a_method_names_the_right_one(port: int) -> None:
    answer = ask(port, [request(method="POST")])

    assert answer.head is not None
    assert answer.head.headers["allow"] == "GET"


@pytest.mark.parametrize("name", ["plain", "connection-tab", "host-ipv6-port", "content-length-0", "cookie"])
def test_good_request_opens_byte_by_byte(port: int, name: str) -> None:
    answer = ask(port, [*bytewise(GOOD[name]), close()])

    assert (answer.status, answer.said) == (101, [("close", 1000)])


@pytest.mark.parametrize(
    "name",
    ["method-post", "host-twice", "key-twice", "version-8", "body", "line-feeds-only", "tls", "path-root", "origin"],
)
def test_bad_request_is_refused_byte_by_byte(port: int, name: str) -> None:
    stream, status = REFUSED[name]

    assert ask(port, bytewise(stream)).status == status


@pytest.mark.parametrize("left", range(1, 8))
def test_request_and_frames_cut_near_their_border(port: int, left: int) -> None:
    whole = request() + ping("a") + close()
    cut = len(request()) - left

    answer = ask(port, [whole[:cut], whole[cut:]])

    assert (answer.status, answer.said) == (101, [("pong", b"a"), ("close", 1000)])


@pytest.mark.parametrize(("frames", "said"), PIPELINED.values(), ids=PIPELINED)
def test_frames_behind_the_request_are_answered_after_it(port: int, frames: bytes, said: list[object]) -> None:
    answer = ask(port, [request() + frames])

    assert (answer.status, answer.said) == (101, said)


@pytest.mark.parametrize("behind", [ping(), text("a"), close(), request(), b"\x00" * 100_000])
def test_what_follows_a_refused_request_is_thrown_away(port: int, behind: bytes) -> None:
    answer = ask(port, [request(without="Host") + behind])

    assert (answer.status, answer.frames) == (400, [])


@pytest.mark.parametrize("size", [0, 1, 3, 20, 60, 150])
def test_request_that_ends_too_early_opens_nothing(port: int, size: int) -> None:
    answer = ask(port, [request()[:size]], ends=True)

    assert answer.status == 400


def test_request_is_answered_only_behind_its_empty_line(port: int) -> None:
    with dialled(port) as peer:
        peer.send([request()[:-2], b"\r\n"])

        assert parse_head(peer.read_head()).status == 101


def test_health_is_answered_without_an_upgrade(port: int) -> None:
    assert ask(port, [b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"]).status == 200


def test_unsolicited_pong_right_behind_the_handshake_is_nothing(port: int) -> None:
    with connected(port) as peer:
        peer.send([frame(10, "x"), frame(PING, "y"), close()])

        assert parse_frames(peer.read_rest()) == [(10, b"y"), (8, b"\x03\xe8")]
