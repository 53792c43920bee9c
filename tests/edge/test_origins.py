"""Mutated heads through the real program to real servers: each sees exactly the requests that the edge logged."""

from __future__ import annotations

import asyncio
import collections
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from edge.routes import encode, key_of
from tests.edge.conftest import EdgeProcess, edge_program, ready_route, running_edge
from tests.edge.mutations import mutated, with_host
from tests.edge.origins.servers import KINDS, REFUSED, Kind, Origin, Seen, path_of, running
from tests.edge.wire import WAIT_S, origin, until, visitor

BATCH = 2_000
AT_ONCE = 48
HEADS = int(os.environ.get("STAGELY_TEST_HEADS", "200000"))  # A night on a machine of its own may try more.
LEAST_ORIGINS = 6
FAST = ("uvicorn", "http.server", "node", "nginx")


class Attack(asyncio.Protocol):
    """Sends some bytes, ends its side, and takes all that comes back."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self.answer = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._wire)
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self.answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def attack(port: int, wires: list[bytes]) -> list[bytes]:
    """What came back for each of these, sent over a connection of its own."""
    answers = [b""] * len(wires)
    left = collections.deque(enumerate(wires))

    async def work() -> None:
        while left:
            at, wire = left.popleft()
            _, sent = await asyncio.get_running_loop().create_connection(partial(Attack, wire), "127.0.0.1", port)
            try:
                async with asyncio.timeout(WAIT_S):
                    await sent.ended
            except TimeoutError:
                raise AssertionError(f"no end within {WAIT_S} s of {wire!r}") from None
            answers[at] = bytes(sent.answer)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return answers


@dataclass(slots=True)
class Logged:
    """What the edge says it forwarded to one origin: answered by the application, and everything else."""

    answered: Counter[Seen] = field(default_factory=Counter)
    other: Counter[Seen] = field(default_factory=Counter)

    def note(self, event: dict[str, Any]) -> None:
        seen = (event["method"], path_of(event["path"]), str(event["body_bytes"]))
        (self.answered if event["status"] == 200 else self.other)[seen] += 1

    def complaints(self, seen: Counter[Seen]) -> list[str]:
        """How a server's own notes differ.

        The echo always answers 200, so each 200 must be noted once. What the edge or the server refused, or the
        client left, may be noted or not, but nothing may be noted that the edge did not log.
        """
        complete = Counter({key: count for key, count in seen.items() if key[2] != REFUSED})
        missing = self.answered - complete
        invented = complete - self.answered - self.other
        paths = Counter({key[:2]: count for key, count in self.other.items()})
        refused = Counter({key[:2]: count for key, count in seen.items() if key[2] == REFUSED}) - paths
        return [f"missing {key}" for key in missing] + [f"invented {key}" for key in [*invented, *refused]]


@dataclass(slots=True)
class Garden:
    """One edge and the origins behind it, by host name."""

    edge: EdgeProcess
    origins: dict[str, Origin]
    logged: dict[str, Logged]

    def read_log(self) -> None:
        for event in self.edge.fresh_events():
            if event["event"] == "request served" and (host := event["host"].partition(":")[0]) in self.logged:
                self.logged[host].note(event)

    async def complaints(self) -> list[str]:
        """None, once every server has written what it saw; lighttpd does so every few seconds.

        Who has nothing left to complain of is not asked again: comparing all that was ever seen costs more each time.
        """
        waiting, found = dict(self.origins), list[str]()
        for _ in range(100):
            self.read_log()
            complaints = {host: self.logged[host].complaints(origin.seen()) for host, origin in waiting.items()}
            found = [
                f"{waiting[host].name}: {complaint}" for host, all_of in complaints.items() for complaint in all_of
            ]
            waiting = {host: origin for host, origin in waiting.items() if complaints[host]}
            if not waiting:
                return []
            await asyncio.sleep(0.1)
        return found


@contextmanager
def garden(redis_url: str, folder: Path, kinds: list[Kind]) -> Iterator[Garden]:
    with (
        running(kinds, folder) as origins,
        edge_program(redis_url, STAGELY_DOMAIN="d", STAGELY_EDGE_ACCESS_LOG="1", STAGELY_EDGE_RATE_LIMIT="0") as edge,
    ):
        by_host = {f"o{'abcdefghijklmnop'[n]}.d": origin for n, origin in enumerate(origins)}
        yield Garden(edge, by_host, {host: Logged() for host in by_host})


async def plant(redis: Redis, garden: Garden) -> None:
    """Write the routes and wait until every origin answers."""
    for host, planted in garden.origins.items():
        await redis.set(key_of(host[:2]), encode(ready_route(planted.port, environment=host)))
    async with asyncio.timeout(WAIT_S):
        for host in garden.origins:
            while (await _answer(garden.edge.port, host)) != 200:  # noqa: ASYNC110  # Another program has no event.
                await asyncio.sleep(0.1)


async def _answer(port: int, host: str) -> int:
    async with visitor(port) as browser:
        return (await browser.ask(f"GET /ready HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status


async def run_mutations(garden: Garden, count: int) -> int:
    """Send `count` mutated heads; those that reach one origin go to all the others too. How many reached one."""
    hosts = list(garden.origins)
    reached = 0
    for start in range(0, count, BATCH):
        texts = [mutated(n) for n in range(start, min(count, start + BATCH))]
        chosen = [hosts[n % len(hosts)] for n in range(len(texts))]
        answers = await attack(garden.edge.port, [with_host(t, h) for t, h in zip(texts, chosen, strict=True)])
        passed = [n for n, answer in enumerate(answers) if b"x-body-length: " in answer.lower()]
        reached += len(passed)
        again = [with_host(texts[n], host) for n in passed for host in hosts if host != chosen[n]]
        await attack(garden.edge.port, again)
        complaints = await garden.complaints()
        assert complaints == []
    return reached


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that servers may read which give up being root."""
    for each in (tmp_path, *tmp_path.parents[:3]):
        each.chmod(0o755)
    return tmp_path


async def test_some_origins_see_exactly_what_the_edge_logged(redis_url: str, redis: Redis, folder: Path) -> None:
    kinds = [kind for kind in KINDS if kind.name in FAST and kind.is_there()]
    with garden(redis_url, folder, kinds) as planted:
        await plant(redis, planted)
        reached = await run_mutations(planted, 10_000)

    assert reached > 2_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_every_origin_sees_exactly_what_the_edge_logged(redis_url: str, redis: Redis, folder: Path) -> None:
    kinds = [kind for kind in KINDS if kind.is_there()]
    missing = [f"{kind.name} (package {kind.package})" for kind in KINDS if kind not in kinds]
    print(f"not installed, so not tried: {', '.join(missing) or 'none'}")
    assert len(kinds) >= LEAST_ORIGINS, missing
    with garden(redis_url, folder, kinds) as planted:
        await plant(redis, planted)
        reached = await run_mutations(planted, HEADS)

    print(f"{reached} of {HEADS} heads reached {len(kinds)} origins each")
    assert reached > HEADS // 5


def test_request_that_only_the_origin_knows_of_is_a_complaint() -> None:
    logged = Logged()
    logged.note({"method": "GET", "path": "/a", "body_bytes": 0, "status": 200})
    logged.note({"method": "POST", "path": "//b", "body_bytes": 3, "status": 502})

    assert logged.complaints(Counter({("GET", "/a", "0"): 1})) == []
    assert logged.complaints(Counter({("GET", "/a", "0"): 1, ("POST", "/b", "3"): 1})) == []
    assert logged.complaints(Counter({("GET", "/a", "0"): 1, ("POST", "/b", REFUSED): 1})) == []
    assert logged.complaints(Counter()) == ["missing ('GET', '/a', '0')"]
    assert logged.complaints(Counter({("GET", "/a", "0"): 2})) == ["invented ('GET', '/a', '0')"]
    assert logged.complaints(Counter({("GET", "/a", "0"): 1, ("GET", "/smuggled", REFUSED): 1})) == [
        "invented ('GET', '/smuggled')"
    ]


async def test_cut_exchange_is_logged_with_the_bytes_that_came(redis_url: str, redis: Redis) -> None:
    async with origin() as vm, running_edge(redis_url) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.port) as leaving:
            await leaving.send(b"POST /x?secret HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 9\r\n\r\nabc")
            await until(lambda: vm.connections)
            leaving.writer.transport.abort()
        await until(lambda: edge.events("request served"))
        (served,) = edge.events("request served")

    assert (served["status"], served["path"], served["body_bytes"]) == (499, "/x", 3)
