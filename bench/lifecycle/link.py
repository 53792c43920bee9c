"""The driver's side of the worker process: started, heard, asked, and ended with the block."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.lifecycle.place import Place
from bench.lifecycle.wire import Kind, Line, encode, lines
from tests.services import child

START_TIMEOUT_S = 60.0  # Two seconds on an idle machine.
ANSWER_TIMEOUT_S = 30.0
_LOOK_S = 0.1


class WorkerFailed(Exception):
    """The worker process ended, or does not answer. The text has the end of its log."""


@dataclass(slots=True)
class Link:
    """`orders` of agents and `ready` pull requests are filled by `bare` only: Stagely writes rows."""

    pid: int
    log: Path
    writer: asyncio.StreamWriter
    orders: asyncio.Queue[Line] = field(default_factory=asyncio.Queue)
    ready: set[int] = field(default_factory=set)
    _answers: asyncio.Queue[Line] = field(default_factory=asyncio.Queue)

    def hear(self, line: Line) -> None:
        if line.kind is Kind.ORDERED:
            self.orders.put_nowait(line)
        elif line.kind is Kind.READY:
            self.ready.add(line.pr)
        else:
            self._answers.put_nowait(line)

    async def ask(self, kind: Kind) -> Line:
        """The worker's answer. Raises WorkerFailed."""
        self.writer.write(encode(Line(kind)))
        return await self.answer(ANSWER_TIMEOUT_S)

    async def answer(self, timeout_s: float) -> Line:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answers.get()
        except TimeoutError:
            raise WorkerFailed(f"the worker did not answer within {timeout_s:.0f} s.{tail(self.log)}") from None


@asynccontextmanager
async def worker_process(target: str, place: Place) -> AsyncIterator[Link]:
    """The worker, once it serves. Raises WorkerFailed."""
    log = Path(place.folder) / "worker.log"
    connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_unix_server(lambda r, w: connected.put_nowait((r, w)), place.socket)
    argv = [sys.executable, "-m", "bench.lifecycle.worker", target, place.to_text()]
    with child(argv, log) as process:
        reader, writer = await _connection(connected, process, log)
        link = Link(process.pid, log, writer)
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(_hear(link, reader))
            try:
                await link.answer(START_TIMEOUT_S)
                yield link
            finally:
                hearing.cancel()
                writer.close()
                server.close()


async def _hear(link: Link, reader: asyncio.StreamReader) -> None:
    async for line in lines(reader):
        link.hear(line)
    raise WorkerFailed(f"the worker ended in the middle of a round.{tail(link.log)}")


async def _connection(
    connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    process: subprocess.Popen[bytes],
    log: Path,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while connected.empty():
                if process.poll() is not None:
                    raise WorkerFailed(f"the worker ended with {process.returncode} at its start.{tail(log)}")
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise WorkerFailed(f"the worker did not start within {START_TIMEOUT_S:.0f} s.{tail(log)}") from None
    return connected.get_nowait()


def tail(log: Path, lines_shown: int = 20) -> str:
    """The last lines of a log, on lines of their own; "" when there are none."""
    if not log.exists():
        return ""
    shown = log.read_text(errors="replace").splitlines()[-lines_shown:]
    return "".join(f"\n  {line}" for line in shown)
