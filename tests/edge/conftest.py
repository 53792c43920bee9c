"""A running edge for tests, and what puts routes before it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from edge.config import Limits, Settings
from edge.log import Log
from edge.proxy import Edge
from edge.routes import Route, RouteStatus, encode, key_of
from tests.services import free_port
from tests.valkey import Valkey

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 20.0
_labels = itertools.count(1)


def ready_route(port: int, **changes: str | int | float | bool) -> Route:
    """A route to an origin on this machine."""
    route = Route(RouteStatus.READY, project="shop", team="local", pr=7, environment="env1", ip="127.0.0.1", port=port)
    return dataclasses.replace(route, **changes)  # type: ignore[arg-type]  # The names and types are the caller's.


Announce = Callable[[Route], Awaitable[str]]


@pytest.fixture
def announce(redis: Redis) -> Announce:
    """Writes a route under a fresh label and returns that label."""

    async def write(route: Route) -> str:
        label = f"preview{next(_labels)}"
        await redis.set(key_of(label), encode(route))
        return label

    return write


@dataclasses.dataclass(slots=True)
class EdgeProcess:
    """`python -m edge` and where it listens."""

    process: subprocess.Popen[str]
    port: int


def start_edge(redis_url: str, **settings: str) -> EdgeProcess:
    """Start the program and read its port from its log."""
    environment = {**os.environ, "STAGELY_REDIS_URL": redis_url, "STAGELY_EDGE_LISTEN": "127.0.0.1:0", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "edge"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "edge listening":
            return EdgeProcess(process, event["port"])
    raise AssertionError(f"edge ended with {process.wait(STOP_TIMEOUT_S)} and never listened")


def run_edge(**settings: str) -> tuple[int, dict[str, object]]:
    """Exit code and last event of an edge that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "edge"],
        env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def edge_process(valkey_port: int) -> Iterator[EdgeProcess]:
    """The real program, shared; no test may stop it."""
    edge = start_edge(f"redis://127.0.0.1:{valkey_port}/0")
    yield edge
    edge.process.send_signal(signal.SIGKILL)
    edge.process.wait(STOP_TIMEOUT_S)


@pytest.fixture
def port(edge_process: EdgeProcess, redis: Redis) -> int:
    """Where the shared edge listens; its routes were emptied."""
    return edge_process.port


@dataclasses.dataclass(slots=True)
class RunningEdge:
    """An edge inside this process, with limits of the test's own."""

    edge: Edge
    log: io.StringIO

    @property
    def port(self) -> int:
        return self.edge.listening[0][1]

    def events(self, name: str) -> list[dict[str, object]]:
        return [event for event in map(json.loads, self.log.getvalue().splitlines()) if event["event"] == name]


@asynccontextmanager
async def running_edge(redis_url: str, limits: Limits | None = None, rate_limit: int = 0) -> AsyncIterator[RunningEdge]:
    log = io.StringIO()
    settings = Settings(
        listen=(("127.0.0.1", 0),),
        redis_url=redis_url,
        domain="localhost",
        rate_limit=rate_limit,
        access_log=True,
        limits=limits or Limits(sweep_s=0.05, drain_s=0.2),
    )
    edge = Edge(settings, Log(log))
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(edge.run())
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await edge.ready.wait()
        try:
            yield RunningEdge(edge, log)
        finally:
            edge.stop()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await run


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A Valkey that the test may kill."""
    valkey = Valkey(tmp_path, free_port())
    await valkey.start()
    yield valkey
    valkey.kill()
