"""Several processes behind one address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from edge.limits import TokenBucket
from edge.routes import encode, key_of
from tests.edge.certificates import Pair, trusting, write_pair
from tests.edge.conftest import STOP_TIMEOUT_S, Announce, EdgeProcess, edge_program, ready_route, run_edge, start_edge
from tests.edge.wire import Visitor, origin, until, visitor

WORKERS = 3


@pytest.fixture
async def edge(redis_url: str) -> AsyncIterator[EdgeProcess]:
    edge = start_edge(redis_url, STAGELY_EDGE_WORKERS=str(WORKERS))
    await until(lambda: len(workers_of(edge)) == WORKERS)
    yield edge
    edge.process.terminate()
    edge.process.wait(STOP_TIMEOUT_S)


def workers_of(edge: EdgeProcess) -> set[int]:
    pid = edge.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def sockets_of(pid: int) -> set[str]:
    return {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has now."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first: int = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


async def requests_counted(port: int) -> int:
    """What the worker says that is read at this port."""
    async with visitor(port) as prometheus:
        answer = await prometheus.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    found = re.search(rb'^stagely_edge_requests_total\{status="2xx"\} (\d+)$', answer.body, re.MULTILINE)
    assert found is not None
    return int(found[1])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def status_by_tls(port: int, pair: Pair) -> int:
    """Of the preview `a`, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(pair), server_hostname="a.localhost")
    answer = await Visitor(reader, writer).ask(b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
    writer.transport.abort()
    return answer.status


async def statuses(port: int, label: str, count: int) -> list[int]:
    """Of so many requests, each on a connection of its own."""
    found = []
    for _ in range(count):
        async with visitor(port) as client:
            found.append((await client.ask(b"GET / HTTP/1.1\r\nHost: %b.localhost\r\n\r\n" % label.encode())).status)
    return found


async def test_every_worker_serves_the_one_address(edge: EdgeProcess, announce: Announce) -> None:
    async with origin() as vm, contextlib.AsyncExitStack() as stack:
        label = await announce(ready_route(vm.port))
        before = {pid: len(sockets_of(pid)) for pid in workers_of(edge)}

        for _ in range(60):
            client = await stack.enter_async_context(visitor(edge.port))
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: %b.localhost\r\n\r\n" % label.encode())).status == 200

        assert all(len(sockets_of(pid)) > count for pid, count in before.items())


async def test_killed_worker_is_replaced_and_visitors_are_served(edge: EdgeProcess, announce: Announce) -> None:
    victim = min(workers_of(edge))

    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in workers_of(edge) and len(workers_of(edge)) == WORKERS)

    async with origin() as vm:
        assert set(await statuses(edge.port, await announce(ready_route(vm.port)), 20)) == {200}


async def test_sigterm_lets_running_requests_end_in_every_worker(edge: EdgeProcess, announce: Announce) -> None:
    workers = workers_of(edge)
    async with origin() as vm, visitor(edge.port) as client:
        label = await announce(ready_route(vm.port))
        await client.send(b"POST / HTTP/1.1\r\nHost: %b.localhost\r\nContent-Length: 2\r\n\r\n" % label.encode())
        await until(lambda: vm.connections)

        edge.process.terminate()
        await until(lambda: sum(not is_gone(pid) for pid in workers) == 1)
        await client.send(b"ab")

        assert (await client.answer()).body == b"ab"
    assert edge.process.wait(STOP_TIMEOUT_S) == 0


async def test_workers_end_when_the_supervisor_is_killed(edge: EdgeProcess) -> None:
    workers = workers_of(edge)

    edge.process.kill()

    await until(lambda: all(is_gone(pid) for pid in workers))


def test_address_that_another_edge_shares_is_refused(edge: EdgeProcess, redis_url: str) -> None:
    address = f"127.0.0.1:{edge.port}"

    code, event = run_edge(STAGELY_EDGE_LISTEN=address, STAGELY_REDIS_URL=redis_url, STAGELY_EDGE_WORKERS="2")

    assert (code, event["event"]) == (2, "edge cannot listen")


async def test_workers_share_the_tls_address_and_are_read_each_at_a_port_of_its_own(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    pair = write_pair(tmp_path / "tls")
    tls = {"STAGELY_TLS_CERT": str(pair.certificate), "STAGELY_TLS_KEY": str(pair.key)}
    first = free_ports(2)
    with edge_program(
        redis_url,
        STAGELY_EDGE_LISTEN="",
        STAGELY_EDGE_TLS_LISTEN="127.0.0.1:0",
        STAGELY_EDGE_METRICS_LISTEN=f"127.0.0.1:{first}",
        STAGELY_EDGE_WORKERS="2",
        **tls,
    ) as edge:
        async with origin() as vm:
            await redis.set(key_of("a"), encode(ready_route(vm.port)))
            found = [await status_by_tls(edge.port, pair) for _ in range(20)]
        counted = [await requests_counted(first), await requests_counted(first + 1)]

    assert set(found) == {200}
    assert min(counted) > 0
    assert sum(counted) == 20


async def test_worker_that_dies_while_the_certificate_is_renewed_does_not_end_the_others(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    pair = write_pair(tmp_path / "tls")
    tls = {"STAGELY_TLS_CERT": str(pair.certificate), "STAGELY_TLS_KEY": str(pair.key)}
    with edge_program(
        redis_url, STAGELY_EDGE_LISTEN="", STAGELY_EDGE_TLS_LISTEN="127.0.0.1:0", STAGELY_EDGE_WORKERS="2", **tls
    ) as edge:
        await until(lambda: len(workers_of(edge)) == 2)
        before = workers_of(edge)
        pair.key.rename(tmp_path / "key")

        os.kill(min(before), signal.SIGKILL)
        await until(lambda: "worker failed" in {event["event"] for event in edge.fresh_events()})
        (tmp_path / "key").rename(pair.key)
        await until(lambda: "edge listening" in {event["event"] for event in edge.fresh_events()})

        async with origin() as vm:
            await redis.set(key_of("a"), encode(ready_route(vm.port)))
            assert await status_by_tls(edge.port, pair) == 200
        assert before - workers_of(edge) == {min(before)}


def test_metrics_port_that_is_taken_is_refused_before_anything_serves(redis_url: str) -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        code, event = run_edge(
            STAGELY_EDGE_LISTEN="127.0.0.1:0",
            STAGELY_EDGE_METRICS_LISTEN=f"127.0.0.1:{first}",
            STAGELY_REDIS_URL=redis_url,
            STAGELY_EDGE_WORKERS="2",
        )

    assert (code, event["event"]) == (2, "edge cannot listen")


async def test_processes_share_the_limit_of_a_host(redis_url: str, announce: Announce) -> None:
    edge = start_edge(redis_url, STAGELY_EDGE_WORKERS="2", STAGELY_EDGE_RATE_LIMIT="10")
    try:
        async with origin() as vm, contextlib.AsyncExitStack() as stack:
            label = await announce(ready_route(vm.port))
            request = b"GET / HTTP/1.1\r\nHost: %b.localhost\r\n\r\n" % label.encode()
            client = await stack.enter_async_context(visitor(edge.port))

            await client.send(request * 30)
            found = [(await client.answer()).status for _ in range(30)]

        assert 5 <= found.count(200) <= 8
    finally:
        edge.process.terminate()
        edge.process.wait(STOP_TIMEOUT_S)


def test_share_below_one_request_per_second_still_lets_one_pass() -> None:
    bucket = TokenBucket(0.5, 0.0)

    assert [bucket.take(at) for at in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]
