"""Time and number limits of a running edge, with seconds made short."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from edge.config import Limits
from edge.limits import TokenBucket
from edge.routes import encode, key_of
from tests.edge.conftest import ready_route, running_edge
from tests.edge.wire import WAIT_S, Reader, Writer, ok, origin, read_head, read_message, until, visitor

GET = b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n"


def limits(**changes: float) -> Limits:
    return Limits(sweep_s=0.02, drain_s=0.2, **changes)  # type: ignore[arg-type]  # Names and types are the caller's.


async def test_slow_head_is_ended_with_408(redis_url: str, redis: Redis) -> None:
    async with running_edge(redis_url, limits(head_s=0.2)) as edge, visitor(edge.port) as slow:
        await slow.send(b"GET / HTTP/1.1\r\nHost: a.loc")
        answer = await slow.answer()
        end = await slow.rest()

    assert (answer.status, end) == (408, b"")


async def test_connection_without_a_request_is_closed_silently(redis_url: str, redis: Redis) -> None:
    async with running_edge(redis_url, limits(head_s=0.1)) as edge, visitor(edge.port) as idle:
        end = await idle.rest()

    assert end == b""


async def test_kept_connection_is_closed_after_its_idle_time(redis_url: str, redis: Redis) -> None:
    async with running_edge(redis_url, limits(idle_s=0.1)) as edge, visitor(edge.port) as browser:
        answer = await browser.ask(GET)
        end = await browser.rest()

    assert (answer.status, answer["connection"], end) == (404, None, b"")


async def test_vm_that_never_answers_gives_504(redis_url: str, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await reader.read()

    async with origin(script) as vm, running_edge(redis_url, limits(response_s=0.2)) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as browser:
            answer = await browser.ask(GET)

    assert (answer.status, answer["connection"]) == (504, "close")


async def test_body_that_falls_silent_is_cut(redis_url: str, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await reader.read()

    async with origin(script) as vm, running_edge(redis_url, limits(stream_s=0.2)) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as browser:
            await browser.send(GET)
            end = await browser.rest()

    assert end.endswith(b"he")


async def test_reader_that_never_reads_is_cut(redis_url: str, redis: Redis) -> None:
    cut = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        finally:
            cut.set()

    async with origin(script) as vm, running_edge(redis_url, limits(stall_s=0.2)) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as browser:
            browser.writer.transport.pause_reading()  # type: ignore[attr-defined]  # Reading is stopped at the socket.
            await browser.send(GET)
            await asyncio.wait_for(cut.wait(), WAIT_S)


async def test_visitor_that_takes_no_answers_holds_up_nobody_else(redis_url: str, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            await read_head(reader)
            writer.write(ok(b"x" * 60_000))

    async with origin(script) as vm, running_edge(redis_url, limits(response_s=1)) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as stopped, visitor(edge.port) as browser:
            stopped.writer.transport.pause_reading()  # type: ignore[attr-defined]  # Reading is stopped at the socket.
            await stopped.send(GET * 500)
            await until(lambda: any(client.write_blocked for client in edge.edge.clients))
            answer = await browser.ask(GET)

    assert answer.status == 200
    assert vm.connections == 1  # The one that answered the other visitor to the last byte.


async def test_vm_takes_a_bounded_number_of_connections(redis_url: str, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await reader.read()

    async with origin(script) as vm, running_edge(redis_url, limits(pool_open_max=1)) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as one, visitor(edge.port) as two:
            await one.send(GET)
            await until(lambda: vm.connections)
            answer = await two.ask(GET)

    assert answer.status == 503


async def test_draining_finishes_the_running_answer_and_takes_no_more(redis_url: str, redis: Redis) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        begun.set()
        await go_on.wait()
        writer.write(ok(b"finished"))
        await reader.read()

    drained = Limits(sweep_s=0.02, drain_s=20)
    async with origin(script) as vm, running_edge(redis_url, drained) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as browser, visitor(edge.port) as idle:
            await browser.send(GET)
            await asyncio.wait_for(begun.wait(), WAIT_S)
            edge.edge.stop()
            idle_end = await idle.rest()
            go_on.set()
            answer = await browser.answer()
            end = await browser.rest()

    assert (idle_end, answer.body, answer["connection"], end) == (b"", b"finished", "close", b"")


async def test_drain_has_an_end(redis_url: str, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await reader.read()

    async with origin(script) as vm:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with running_edge(redis_url, limits()) as edge:
            _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(GET)
            await until(lambda: vm.connections)
        cut_short = edge.events("drain cut short")
        writer.close()

    assert [event["clients"] for event in cut_short] == [1]


def test_bucket_lets_its_rate_pass_and_no_more() -> None:
    bucket = TokenBucket(1000, 0.0)

    passed = sum(bucket.take(n / 3000) for n in range(30000))

    assert 10_980 <= passed <= 11_020  # Ten seconds at 1,000 each, and the second's worth it began with.


def test_bucket_of_rate_zero_lets_all_pass() -> None:
    bucket = TokenBucket(0, 0.0)

    assert all(bucket.take(0.0) for _ in range(10_000))
