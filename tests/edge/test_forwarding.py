"""One exchange through the running edge: what the origin gets, what the visitor gets, and both as a stream."""

from __future__ import annotations

import asyncio

import pytest

from tests.edge.conftest import Announce, ready_route
from tests.edge.wire import WAIT_S, Reader, Writer, ok, origin, read_chunk, read_head, read_message, until, visitor
from tests.services import free_port


def get(label: str, extra: str = "", path: str = "/", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {label}.localhost\r\n{extra}\r\n".encode()


async def test_request_reaches_the_vm_with_context_and_without_look_alikes(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))

        await browser.ask(
            f"GET /a?b=c HTTP/1.1\r\nHost: {label.upper()}.localhost:{port}\r\nUser-Agent: x\r\nX_Stagely_PR: 9\r\n"
            "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nProxy: http://evil\r\n"
            "Keep-Alive: 5\r\nTE: trailers\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nCookie: a=b\r\n\r\n".encode()
        )

    host = f"{label}.localhost:{port}"
    assert vm.requests[0].raw.decode() == (
        f"GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x\r\nCookie: a=b\r\n"
        "X-Stagely-PR: 7\r\nX-Stagely-Project: shop\r\nX-Stagely-Team: local\r\n"
        "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        f'Forwarded: for=127.0.0.1;proto=http;host="{host}"\r\nX-Forwarded-Host: {host}\r\n\r\n'
    )


async def test_answer_loses_hop_by_hop_fields_and_confines_cookies(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(
            b"HTTP/1.1 200 Fine\r\nServer: nginx\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: max=5\r\n"
            b"Set-Cookie: a=b; Domain=localhost; Path=/\r\nset-cookie: c=d; domain = .LOCALHOST\r\nAlt-Svc: h3\r\n"
            b'Clear-Site-Data: "*"\r\nOrigin-Agent-Cluster: ?0\r\nX-Stagely-Team: evil\r\nX-Robots-Tag: all\r\n'
            b"Content-Length: 002\r\n\r\nhi"
        )
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        answer = await browser.ask(get(await announce(ready_route(vm.port))))

    assert answer.raw == (
        b"HTTP/1.1 200 Fine\r\nServer: nginx\r\nSet-Cookie: a=b; Path=/\r\nset-cookie: c=d\r\n"
        b"Content-Length: 2\r\nX-Robots-Tag: noindex, nofollow\r\nOrigin-Agent-Cluster: ?1\r\n\r\n"
    )
    assert answer.body == b"hi"


async def test_both_connections_are_kept_for_the_next_request(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))

        answers = [await browser.ask(get(label, path=f"/{n}")) for n in range(5)]

    assert [a.status for a in answers] == [200, 200, 200, 200, 200]
    assert vm.connections == 1


async def test_pipelined_requests_are_answered_in_order(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        body = "POST / HTTP/1.1\r\nHost: {0}.localhost\r\nContent-Length: 3\r\n\r\n{1:03}"

        await browser.send("".join(body.format(label, n) for n in range(200)).encode())
        answers = [await browser.answer() for _ in range(200)]

    assert [a.body for a in answers] == [b"%03d" % n for n in range(200)]


async def test_thousands_of_requests_for_unknown_hosts_in_one_packet_are_all_answered(port: int) -> None:
    async with visitor(port) as browser:
        await browser.send(b"HEAD / HTTP/1.1\r\nHost: other.example\r\n\r\n" * 3000)
        answers = [await browser.answer(bodyless=True) for _ in range(3000)]

    assert {a.status for a in answers} == {404}


async def test_chunked_request_streams_while_it_is_sent(port: int, announce: Announce) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        while chunk := await read_chunk(reader):
            received.put_nowait(chunk)
        writer.write(ok())

    async with origin(script) as vm, visitor(port) as browser, asyncio.timeout(WAIT_S):
        await browser.send(get(await announce(ready_route(vm.port)), "Transfer-Encoding: chunked\r\n", method="POST"))
        await browser.send(b"5;ext=1\r\nhello\r\n")
        first = await received.get()
        await browser.send(b"6\r\n world\r\n0\r\n\r\n")
        second = await received.get()
        answer = await browser.answer()

    assert (first, second, answer.status) == (b"hello", b" world", 200)


async def test_server_sent_events_arrive_one_by_one(port: int, announce: Announce) -> None:
    go_on = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\nX-Trailer: dropped\r\n\r\n")
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(get(await announce(ready_route(vm.port))))
        head = await read_head(browser.reader)
        first = await read_chunk(browser.reader)
        go_on.set()
        second = await read_chunk(browser.reader)
        end = await read_chunk(browser.reader)

    assert head["transfer-encoding"] == "chunked"
    assert (first, second, end) == (b"one", b"two", b"")


async def test_answer_that_ends_with_the_connection_becomes_chunked(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    async with origin(script) as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        answer = await browser.ask(get(label))
        again = await browser.ask(get(label))

    assert (answer["transfer-encoding"], answer.body, again.body) == ("chunked", b"hello", b"hello")


async def test_http_1_0_client_gets_an_unchunked_answer_and_a_close(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        head = await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\n\r\n{head.line}".encode())

    async with origin(script) as vm, visitor(port) as script_user:
        label = await announce(ready_route(vm.port))
        await script_user.send(f"GET / HTTP/1.0\r\nHost: {label}.localhost\r\n\r\n".encode())
        answer = await script_user.rest()

    assert answer == (
        b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noindex, nofollow\r\nOrigin-Agent-Cluster: ?1\r\nConnection: close\r\n\r\n"
        b"GET / HTTP/1.0"
    )


@pytest.mark.parametrize(
    ("method", "head", "expected"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "5000"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n", "5000"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ],
)
async def test_answer_without_body_leaves_the_connection_usable(
    port: int, announce: Announce, method: str, head: bytes, expected: str | None
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            await read_message(reader)
            writer.write(head)

    async with origin(script) as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        for _ in range(2):
            await browser.send(get(label, method=method))
            answer = await browser.answer(bodyless=True)

    assert answer["content-length"] == expected
    assert vm.connections == 1


async def test_origin_decides_over_100_continue(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        head = await read_head(reader)
        assert head["expect"] == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(ok(await reader.readexactly(5)))

    async with origin(script) as vm, visitor(port) as uploader:
        label = await announce(ready_route(vm.port))
        await uploader.send(get(label, "Content-Length: 5\r\nExpect: 100-continue\r\n", method="PUT"))
        interim = await read_head(uploader.reader)
        await uploader.send(b"hello")
        answer = await uploader.answer()

    assert (interim.line, answer.body) == ("HTTP/1.1 100 Continue", b"hello")


async def test_early_answer_ends_both_connections(port: int, announce: Announce) -> None:
    gone = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read()
        gone.set()

    async with origin(script) as vm, visitor(port) as uploader:
        label = await announce(ready_route(vm.port))
        await uploader.send(get(label, "Content-Length: 1000000\r\n", method="POST") + b"x" * 1000)
        answer = await uploader.answer()
        await uploader.send(b"y" * 1000)
        end = await uploader.rest()
        await asyncio.wait_for(gone.wait(), WAIT_S)

    assert (answer.status, answer["connection"], answer.body, end) == (413, "close", b"big", b"")


async def test_early_hints_pass(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + ok())
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(get(await announce(ready_route(vm.port))))
        hints = await read_head(browser.reader)
        answer = await browser.answer()

    assert (hints.line, hints["link"], answer.body) == ("HTTP/1.1 103 Early Hints", "</a.css>", b"ok")


async def test_idempotent_request_is_tried_again_when_the_kept_connection_was_dead(
    port: int, announce: Announce
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(ok())
        await read_message(reader)  # Takes the second request and dies on it.

    async with origin(script) as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        answers = [await browser.ask(get(label)), await browser.ask(get(label))]

    assert [a.status for a in answers] == [200, 200]
    assert vm.connections == 2


async def test_post_is_never_sent_twice(port: int, announce: Announce) -> None:
    posts = []

    async def script(reader: Reader, writer: Writer) -> None:
        posts.append(await read_message(reader))
        writer.write(ok())
        posts.append(await read_message(reader))

    async with origin(script) as vm, visitor(port) as browser:
        post = get(await announce(ready_route(vm.port)), "Content-Length: 1\r\n", method="POST") + b"x"
        answers = [await browser.ask(post), await browser.ask(post)]

    assert [a.status for a in answers] == [200, 502]
    assert len(posts) == 2


async def test_request_is_tried_once_only_on_a_fresh_connection(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)

    async with origin(script) as vm, visitor(port) as browser:
        answer = await browser.ask(get(await announce(ready_route(vm.port))))

    assert (answer.status, vm.connections) == (502, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n",
    ],
)
async def test_cut_answer_is_visibly_cut_for_the_visitor(port: int, announce: Announce, answer: bytes) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(answer)

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(get(await announce(ready_route(vm.port))))
        got = await browser.rest()

    assert got.startswith(b"HTTP/1.1 200 OK")
    assert not got.endswith(b"0\r\n\r\n")
    assert b"world" not in got


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40000,
    ],
)
async def test_ambiguous_answer_becomes_a_502_page(port: int, announce: Announce, answer: bytes) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(answer)
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(get(await announce(ready_route(vm.port))))
        final = await browser.answer()
        while final.status == 100:
            final = await browser.answer()

    assert final.status == 502


async def test_bytes_behind_an_answer_never_reach_the_next_visitor(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        message = await read_message(reader)
        writer.write(ok(message.line.encode()) + ok(b"poison"))
        await reader.read()

    async with origin(script) as vm, visitor(port) as one, visitor(port) as two:
        label = await announce(ready_route(vm.port))
        first = await one.ask(get(label, path="/one"))
        second = await two.ask(get(label, path="/two"))

    assert (first.body, second.body) == (b"GET /one HTTP/1.1", b"GET /two HTTP/1.1")
    assert vm.connections == 2


async def test_late_bytes_on_an_idle_connection_close_it(port: int, announce: Announce) -> None:
    closed = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(ok())
        await writer.drain()
        if not first.done():
            await first
            writer.write(ok(b"poison"))
            await reader.read()
            closed.set()

    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with origin(script) as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        await browser.ask(get(label))
        first.set_result(None)
        await asyncio.wait_for(closed.wait(), WAIT_S)
        second = await browser.ask(get(label))

    assert second.body == b"ok"


async def test_visitor_that_leaves_ends_the_exchange_at_the_origin(port: int, announce: Announce) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        begun.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async with origin(script) as vm:
        async with visitor(port) as browser:
            post = get(await announce(ready_route(vm.port)), "Content-Length: 9\r\n", method="POST")
            await browser.send(post + b"x")
            await asyncio.wait_for(begun.wait(), WAIT_S)
        await asyncio.wait_for(gone.wait(), WAIT_S)


async def test_half_closed_visitor_still_gets_the_answer(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as netcat:
        await netcat.send(get(await announce(ready_route(vm.port))))
        netcat.writer.write_eof()
        answer = await netcat.rest()

    assert answer.endswith(b"ok")


async def test_reader_that_stops_holds_the_origin_back(port: int, announce: Announce) -> None:
    sent = 0

    async def script(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            async with asyncio.timeout(1):  # Ends the test: the edge took nothing for a second.
                writer.write(b"x" * 65536)
                await writer.drain()
            sent += 65536

    async with origin(script) as vm, visitor(port) as browser:
        browser.writer.transport.pause_reading()  # type: ignore[attr-defined]  # Reading is stopped at the socket.
        await browser.send(get(await announce(ready_route(vm.port))))
        await until(lambda: vm.connections and not vm.open_writers)

    assert sent < 30_000_000  # Socket buffers on three connections; the other 70 MB were never taken.


async def test_twenty_megabytes_pass_both_ways_unchanged(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\nConnection: close\r\n\r\n")
        left = 20_000_000
        while left:
            piece = await reader.read(65536)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    pattern = bytes(range(256)) * 78125
    async with origin(script) as vm, visitor(port) as browser, asyncio.TaskGroup() as tasks:
        label = await announce(ready_route(vm.port))
        tasks.create_task(browser.send(get(label, "Content-Length: 20000000\r\n", method="POST") + pattern))
        answer = await browser.answer()

    assert answer.body == pattern


async def test_machine_that_refuses_connections_gets_a_502_page(port: int, announce: Announce) -> None:
    async with visitor(port) as browser:
        answer = await browser.ask(get(await announce(ready_route(free_port()))))

    assert answer.status == 502
    assert b"does not answer" in answer.body


async def test_tls_route_is_refused_rather_than_sent_in_clear(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        answer = await browser.ask(get(await announce(ready_route(vm.port, tls=True))))

    assert (answer.status, vm.connections) == (502, 0)
