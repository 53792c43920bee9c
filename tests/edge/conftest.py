"""A running edge for tests, and what puts routes before it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis.asyncio import Redis

from edge import plain
from edge.config import Limits, Settings
from edge.log import Log
from edge.proxy import Edge
from edge.routes import Route, RouteStatus, encode, key_of
from tests.edge import reader
from tests.edge.reader import compiled_in
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
    """`python -m edge`, where it listens, and what it has logged."""

    process: subprocess.Popen[bytes]
    log_fd: int
    ports: list[int] = dataclasses.field(default_factory=list)
    _read_bytes: int = 0
    _unread: bytes = b""

    @property
    def port(self) -> int:
        return self.ports[0]

    def fresh_events(self) -> list[dict[str, Any]]:
        """What was logged since this was asked last. The values are JSON's."""
        fresh = b""
        while piece := os.pread(self.log_fd, 1 << 20, self._read_bytes):
            self._read_bytes += len(piece)
            fresh += piece
        *lines, self._unread = (self._unread + fresh).split(b"\n")
        return [json.loads(line) for line in lines]

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * resource.getpagesize()


PROGRAM = ("-m", "edge")


def start_edge(redis_url: str, program: tuple[str, ...] = PROGRAM, /, **settings: str) -> EdgeProcess:
    """Start the program and wait until it listens."""
    environment = {**os.environ, "STAGELY_REDIS_URL": redis_url, "STAGELY_EDGE_LISTEN": "127.0.0.1:0", **settings}
    # A file, not a pipe: an edge whose log nobody reads would stand still once the pipe is full.
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *program], env=environment, cwd=ROOT, stdout=log)
        edge = EdgeProcess(process, os.dup(log.fileno()))
    while process.poll() is None:
        edge.ports += [event["port"] for event in edge.fresh_events() if event["event"] == "edge listening"]
        if edge.ports:
            return edge
        time.sleep(0.01)  # noqa: TID251  # A file has no event for this.
    raise AssertionError(f"edge ended with {process.returncode} and never listened")


@contextmanager
def edge_program(redis_url: str, program: tuple[str, ...] = PROGRAM, /, **settings: str) -> Iterator[EdgeProcess]:
    """The program with settings of the test's own."""
    edge = start_edge(redis_url, program, **settings)
    try:
        yield edge
    finally:
        edge.process.kill()
        edge.process.wait(STOP_TIMEOUT_S)
        os.close(edge.log_fd)


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
    with edge_program(f"redis://127.0.0.1:{valkey_port}/0") as edge:
        yield edge


@pytest.fixture(scope="session")
def compiled_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_in(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session", params=["expressions", "compiled"])
def reader_file(request: pytest.FixtureRequest) -> str:
    """For tests that must hold with the reader of plain heads in both its forms: the compiled one, or ""."""
    return str(request.getfixturevalue("compiled_reader")) if request.param == "compiled" else ""


@pytest.fixture(scope="session")
def edge_by_reader(valkey_port: int, reader_file: str) -> Iterator[EdgeProcess]:
    """As `edge_process`, once with each form."""
    program = (str(Path(reader.__file__)), reader_file)
    with edge_program(f"redis://127.0.0.1:{valkey_port}/0", program) as edge:
        yield edge


@pytest.fixture(scope="module")
def reads_heads(reader_file: str) -> Iterator[None]:
    """Heads are read with that form in this process."""
    found: ModuleType = reader.load(Path(reader_file)) if reader_file else plain
    suffix = "" if reader_file else "_by_expression"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("request", "answer"):
            patch.setattr(plain, name, getattr(found, name + suffix))
        yield


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

    @property
    def tls_port(self) -> int:
        return self.edge.listening[1][1]

    def events(self, name: str) -> list[dict[str, object]]:
        return [event for event in map(json.loads, self.log.getvalue().splitlines()) if event["event"] == name]


@asynccontextmanager
async def running_edge(
    redis_url: str, limits: Limits | None = None, rate_limit: int = 0, **changes: Any
) -> AsyncIterator[RunningEdge]:
    """`changes` are further settings by name; what they may be is for Settings to say."""
    log = io.StringIO()
    settings = Settings(
        listen=(("127.0.0.1", 0),),
        redis_url=redis_url,
        domain="localhost",
        rate_limit=rate_limit,
        access_log=True,
        limits=limits or Limits(sweep_s=0.05, drain_s=0.2),
        **changes,
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
