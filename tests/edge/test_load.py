"""The real program under many visitors: what slow, greedy and silent ones cost the others, and what they cost it."""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from edge.routes import encode, key_of
from tests.certificates import certified_machine, new_authority
from tests.edge.certificates import trusting, write_pair
from tests.edge.conftest import EdgeProcess, edge_program, ready_route
from tests.edge.test_upgrade import switched, upgrade
from tests.edge.vms import ingress_of
from tests.edge.wire import WAIT_S, Reader, Visitor, Writer, ok, origin, read_head, read_message, visitor

SLOW_HEADS, SLOW_BODIES = 1_500, 500
P99_MAX_S = 0.1
STOPPED = 48
STOPPED_COST_MAX = 1 << 20
HOST = "a.localhost"
CHUNKS = b"200\r\n%b\r\n" % (b"x" * 512) * 128
GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def edge(redis_url: str) -> Iterator[EdgeProcess]:
    with edge_program(redis_url, STAGELY_EDGE_RATE_LIMIT="0") as started:
        yield started


async def dribble(port: int, beginning: bytes, count: int, opened: Callable[[], None]) -> None:
    """Connections that begin something and add a byte each now and then, until cancelled."""
    writers = []
    try:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(beginning)
            writers.append(writer)
        opened()
        while True:
            await asyncio.sleep(0.5)
            for writer in writers:
                writer.write(b"x")
    finally:
        for writer in writers:
            writer.transport.abort()


async def p99_of(browser: Visitor, count: int) -> float:
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        assert (await browser.ask(GET)).status == 200
        took.append(time.perf_counter() - begun)
    return sorted(took)[int(count * 0.99)]


async def test_two_thousand_slow_connections_do_not_slow_a_healthy_client(edge: EdgeProcess, redis: Redis) -> None:
    async with origin() as vm, visitor(edge.port) as browser, asyncio.TaskGroup() as tasks:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        opened = asyncio.Semaphore(0)
        head, body = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX: ".encode(), b"Content-Length: 100000\r\n\r\n"
        slow = [
            tasks.create_task(dribble(edge.port, head, SLOW_HEADS, opened.release)),
            tasks.create_task(dribble(edge.port, b"POST" + head[3:-3] + body, SLOW_BODIES, opened.release)),
        ]
        async with asyncio.timeout(WAIT_S):
            await opened.acquire()
            await opened.acquire()
        p99_s = await p99_of(browser, 500)
        resident = edge.resident_bytes()
        for task in slow:
            task.cancel()

    print(f"p99 {1000 * p99_s:.1f} ms, {resident >> 20} MiB resident")
    assert p99_s < P99_MAX_S
    assert resident < 300 << 20


# A client that stops reading: what the edge holds for it, with each kind of answer.


async def endless(reader: Reader, writer: Writer, head: bytes, piece: bytes) -> None:
    await read_head(reader)
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()


async def counted(reader: Reader, writer: Writer) -> None:
    await endless(reader, writer, b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", b"x" * 65536)


async def chunked(reader: Reader, writer: Writer) -> None:
    await endless(reader, writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS)


async def until_close(reader: Reader, writer: Writer) -> None:
    await endless(reader, writer, b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)


async def tunnel(reader: Reader, writer: Writer) -> None:
    await endless(reader, writer, switched(), b"x" * 65536)


async def silent(reader: Reader, writer: Writer) -> None:
    """Takes nothing either."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # Reading is stopped at the socket.
    await asyncio.Event().wait()


UPLOAD = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 900000000\r\n\r\n".encode()
UNKNOWN = b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n"
Script = Callable[[Reader, Writer], Awaitable[None]]


@asynccontextmanager
async def stopped(port: int, wire: bytes, more: bytes, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    """A client that sends `wire`, then `more` as long as it is taken, and never reads."""
    name = HOST if tls else None
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name, limit=4096)
    writer.write(wire)
    sending = asyncio.ensure_future(_send_on(writer, more))
    try:
        yield
    finally:
        sending.cancel()
        writer.transport.abort()


async def _send_on(writer: Writer, more: bytes) -> None:
    while more:
        writer.write(more)
        await writer.drain()


async def settled(edge: EdgeProcess) -> int:
    """The program's memory once it does not grow any more."""
    sizes = [0, edge.resident_bytes()]
    async with asyncio.timeout(WAIT_S):
        while sizes[-1] > sizes[-2]:
            await asyncio.sleep(0.5)
            sizes.append(edge.resident_bytes())
    return sizes[-1]


@pytest.mark.parametrize(
    ("script", "wire", "more"),
    [
        (counted, GET, b""),
        (chunked, GET, b""),
        (until_close, GET, b""),
        (tunnel, upgrade("a"), b""),
        (tunnel, upgrade("a"), b"x" * 65536),
        (silent, UPLOAD, b"x" * 65536),
        (silent, UPLOAD.replace(b"Content-Length: 900000000", b"Transfer-Encoding: chunked"), CHUNKS),
        (silent, UNKNOWN, UNKNOWN * 2000),
        (silent, b"GET / HTTP/1.0\r\n\r\n" * 2, b"x" * 65536),
    ],
    ids=["counted", "chunked", "until-close", "tunnel", "tunnel-both", "upload", "chunks-up", "pipelined", "refused"],
)
@pytest.mark.parametrize("by_tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "tls"])
async def test_client_that_stops_reading_costs_at_most_a_mebibyte(
    redis_url: str, redis: Redis, tmp_path: Path, script: Script, wire: bytes, more: bytes, by_tls: bool
) -> None:
    pair = write_pair(tmp_path / "tls")
    settings = {
        "STAGELY_EDGE_TLS_LISTEN": "127.0.0.1:0",
        "STAGELY_TLS_CERT": str(pair.certificate),
        "STAGELY_TLS_KEY": str(pair.key),
        "STAGELY_EDGE_REDIRECT": "0",
    }
    with edge_program(redis_url, STAGELY_EDGE_RATE_LIMIT="0", **settings) as edge:
        async with origin(script) as vm, AsyncExitStack() as stack:
            await redis.set(key_of("a"), encode(ready_route(vm.port)))
            async with visitor(edge.ports[0]) as first:
                await first.ask(UNKNOWN)
            before = await settled(edge)
            for _ in range(STOPPED):
                await stack.enter_async_context(
                    stopped(edge.ports[int(by_tls)], wire, more, trusting(pair) if by_tls else None)
                )
            cost = (await settled(edge) - before) / STOPPED

    print(f"{cost / 1024:.0f} KiB each")
    assert cost < STOPPED_COST_MAX


@pytest.mark.parametrize(
    ("script", "wire", "more"),
    [(counted, GET, b""), (tunnel, upgrade("a"), b"x" * 65536), (silent, UPLOAD, b"x" * 65536)],
    ids=["counted", "tunnel-both", "upload"],
)
@pytest.mark.parametrize("by_tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "tls"])
async def test_client_that_stops_reading_costs_no_more_where_the_vm_is_reached_by_tls(
    redis_url: str, redis: Redis, tmp_path: Path, script: Script, wire: bytes, more: bytes, by_tls: bool
) -> None:
    pair, authority = write_pair(tmp_path / "tls"), new_authority(tmp_path)
    machine = certified_machine(tmp_path / "vm", authority, "env1")
    settings = {
        "STAGELY_EDGE_TLS_LISTEN": "127.0.0.1:0",
        "STAGELY_TLS_CERT": str(pair.certificate),
        "STAGELY_TLS_KEY": str(pair.key),
        "STAGELY_EDGE_REDIRECT": "0",
        "STAGELY_EDGE_VM_CA": str(authority.trusted),
    }
    with edge_program(redis_url, STAGELY_EDGE_RATE_LIMIT="0", **settings) as edge:
        async with origin(script) as web, ingress_of(machine, web.port) as port, AsyncExitStack() as stack:
            await redis.set(key_of("a"), encode(ready_route(port, tls=True)))
            async with visitor(edge.ports[0]) as first:
                await first.ask(UNKNOWN)
            before = await settled(edge)
            for _ in range(STOPPED):
                await stack.enter_async_context(
                    stopped(edge.ports[int(by_tls)], wire, more, trusting(pair) if by_tls else None)
                )
            cost = (await settled(edge) - before) / STOPPED

    print(f"{cost / 1024:.0f} KiB each")
    assert cost < STOPPED_COST_MAX


async def test_one_address_has_a_limited_number_of_connections(redis_url: str, redis: Redis) -> None:
    with edge_program(redis_url, STAGELY_EDGE_MAX_CONNECTIONS_PER_CLIENT="3") as edge:
        async with AsyncExitStack() as stack:
            three = [await stack.enter_async_context(visitor(edge.port)) for _ in range(3)]
            taken = [(await each.ask(UNKNOWN)).status for each in three]
            async with visitor(edge.port) as fourth:
                turned_away = await fourth.answer()
                end = await fourth.rest()
            three[0].writer.close()
            await three[0].writer.wait_closed()
            again = await _status_of_next(edge.port)

    assert taken == [404, 404, 404]
    assert (turned_away.status, turned_away["connection"], turned_away["retry-after"], end) == (429, "close", "3", b"")
    assert again == 404


async def _status_of_next(port: int) -> int:
    """Of the next connection that is taken in."""
    async with asyncio.timeout(WAIT_S):
        while True:
            async with visitor(port) as browser:
                await browser.send(UNKNOWN)
                status = (await browser.answer()).status
                if status != 429:
                    return status


async def test_busy_host_gets_its_rate_and_no_more_and_a_calm_one_all_it_asks(redis_url: str, redis: Redis) -> None:
    rate = 300

    async def greedy(port: int, until_s: float) -> int:
        passed = 0
        async with visitor(port) as browser:
            while time.monotonic() < until_s:
                passed += (await browser.ask(GET)).status == 200
        return passed

    async with origin() as vm:
        for label in ("a", "calm"):
            await redis.set(key_of(label), encode(ready_route(vm.port)))
        with edge_program(redis_url, STAGELY_EDGE_RATE_LIMIT=str(rate)) as edge:
            begun = time.monotonic()
            async with asyncio.TaskGroup() as tasks, visitor(edge.port) as calm:
                busy = [tasks.create_task(greedy(edge.port, begun + 4)) for _ in range(8)]
                seen = [await calm.ask(GET.replace(b"a.local", b"calm.local")) for _ in range(100)]
            took_s = time.monotonic() - begun

    passed = sum(task.result() for task in busy)
    assert {answer.status for answer in seen} == {200}
    assert 0.97 * rate * 4 <= passed <= 1.02 * rate * (took_s + 1)  # A second's worth may pass at the beginning.


async def test_origin_answers_are_whole_after_all_that(edge: EdgeProcess, redis: Redis) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            await read_message(reader)
            writer.write(ok(b"y" * 3_000_000))

    async with origin(script) as vm, visitor(edge.port) as browser:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        await browser.send(GET * 3)
        await asyncio.sleep(0.2)  # The edge has filled every buffer by now, or will while this reads.
        answers = [await browser.answer() for _ in range(3)]

    assert [len(answer.body) for answer in answers] == [3_000_000] * 3
