"""Agents that build: lines at a steady rate, as many as will go, and read back again.

Peers store each frame by a COPY of its own: as a row per line (`bare`), and as one row (`bare-chunks`, rate and CPU
only). Every line is numbered, and what is stored is read and counted afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial

import asyncpg

from bench.gateway import frames, loglines
from bench.gateway.agents import Crowd
from bench.gateway.bare import CHUNKS, CHUNKS_TABLE, LINES_TABLE, ROWS, TABLES, Duty
from bench.gateway.loglines import LINE_BYTES, STREAM, Tally
from bench.gateway.machine import Spent
from bench.gateway.residents import Resident, heartbeat
from bench.gateway.stage import BUILDER, Incomplete, Played, Scene, Stage, in_turn, scene
from bench.gateway.targets import BARE, STAGELY, Target, target
from bench.lifecycle import proc
from bench.lifecycle.figures import percentile
from bench.measures import Measure
from stagely.db.queries.environments import LOG_PAGE, LogFilter, read_logs
from stagely.db.tables import log_chunks

NAME = "logs"
WRITERS = 50
LINES_PER_S = 1000  # Of one agent.
LINES_PER_FRAME = 100  # What an agent that batches for 100 ms has by then.
WINDOW = 8  # Frames without an ACK, of each agent, at most speed.
READ_LINES = 100_000
READINGS = 5
HEARTBEAT_S = 30.0
ACK_DEADLINE_S = 60.0
TICK_S = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds at the steady rate, and at most speed."""

    steady_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Form:
    """`name` in the figures, the target's own name, and how a bare one stores."""

    name: str
    target: str
    stores: str = ""


FORMS = (Form("bare", BARE, ROWS), Form("bare-chunks", BARE, CHUNKS), Form(STAGELY, STAGELY))


@dataclass(slots=True)
class Seen:
    """`lags_s`: from a frame's sending to the ACK that covers it."""

    steady: Spent = field(default_factory=lambda: Spent(0, 0, 0))
    postgres_s: float = 0.0
    lags_s: list[float] = field(default_factory=list)
    most_per_s: float = 0.0
    most: Spent = field(default_factory=lambda: Spent(0, 0, 0))
    tally: Tally = field(default_factory=lambda: Tally(0, 0, 0))
    read_back_s: float | None = None
    disk_per_line: float = 0.0
    missing: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Writer:
    """One agent's numbers. `waiting`: (seq, when it was sent) of frames without an ACK."""

    number: int
    seq: int = 0
    lines: int = 0
    waiting: deque[tuple[int, float]] = field(default_factory=deque)


async def play(stage: Stage, plan: Plan) -> Played:
    return await in_turn(NAME, {form.name: partial(_of_form, stage, plan, form) for form in FORMS})


async def _of_form(stage: Stage, plan: Plan, form: Form) -> Played:
    name = f"{NAME}_{form.name.replace('-', '_')}"
    async with scene(stage, name, WRITERS + 1, BUILDER) as where:
        if form.stores:
            await _make_tables(where)
        duty = Duty(stores=form.stores)
        with target(form.target, where, stage.folder / f"{name}.log", HEARTBEAT_S, duty) as server:
            await server.listening()
            seen = await Logs(plan, form, server, where).run()
    return Played(figures(form.name, seen), seen.missing + wrongs(seen.tally))


class Logs:
    def __init__(self, plan: Plan, form: Form, server: Target, where: Scene) -> None:
        self._plan = plan
        self._form = form
        self._server = server
        self._scene = where
        self._crowd = Crowd(server.port, where.residents, heard_ack=self._acked)
        self._writers = [Writer(number) for number in range(WRITERS + 1)]
        self._refill_until: float | None = None
        self._all_acked = asyncio.Event()
        self._seen = Seen()

    async def run(self) -> Seen:
        came = await self._crowd.come(range(WRITERS + 1))
        if came < WRITERS + 1:
            self._seen.missing += [f"{came} of {WRITERS + 1} agents got in", *self._crowd.complaints[-2:]]
            return self._seen
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat())
            await self._write_all()
            beating.cancel()
        if self._crowd.lost:
            self._seen.missing += [f"{self._crowd.lost} agents were dropped", *self._crowd.complaints[-2:]]
        await self._crowd.leave()
        if self._form.stores != CHUNKS:
            await self._measure_reading()
        self._seen.tally = await self._count()
        return self._seen

    async def _write_all(self) -> None:
        await self._steadily()
        if self._form.stores != CHUNKS:
            await self._at_most_speed()
            await self._write_for_reading()

    async def _beat(self) -> None:
        beat = frames.masked(frames.TEXT, heartbeat())
        while True:
            for line in self._crowd.lines.values():
                line.send(beat)
            await asyncio.sleep(HEARTBEAT_S)

    async def _steadily(self) -> None:
        """LINES_PER_S of each agent, their frames spread over the time between two of one agent."""
        frames_per_s = WRITERS * LINES_PER_S / LINES_PER_FRAME
        meter, postgres_s = self._server.meter(), self._postgres_s()
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < self._plan.steady_s:
            due = int(passed * frames_per_s)
            for n in range(sent, due):
                self._write(self._writers[n % WRITERS])
            sent = max(sent, due)
            await asyncio.sleep(TICK_S)
        await self._wait_acked()
        self._seen.steady = meter.read()
        self._seen.postgres_s = self._postgres_s() - postgres_s
        self._seen.missing += [] if sent else ["no frame was sent"]

    async def _at_most_speed(self) -> None:
        """Each agent sends its next frame when an earlier one is acknowledged."""
        lags, self._seen.lags_s = self._seen.lags_s, []
        before, began, meter = self._lines_written(), time.monotonic(), self._server.meter()
        self._refill_until = began + self._plan.most_s
        for writer in self._writers[:WRITERS]:
            self._fill(writer)
        await asyncio.sleep(self._plan.most_s)
        await self._wait_acked()
        self._refill_until = None
        self._seen.most = meter.read()
        self._seen.most_per_s = (self._lines_written() - before) / self._seen.most.wall_s
        self._seen.lags_s = lags

    async def _write_for_reading(self) -> None:
        """One agent's run of READ_LINES among those of the others."""
        lags, self._seen.lags_s = self._seen.lags_s, []
        reader = self._writers[WRITERS]
        while reader.lines < READ_LINES:
            self._write(reader)
            if len(reader.waiting) >= WINDOW:
                await self._wait_acked()
        await self._wait_acked()
        self._seen.lags_s = lags

    async def _measure_reading(self) -> None:
        reader = self._scene.residents[WRITERS]
        read = self._read_chunks if self._form.target == STAGELY else self._read_rows
        took = []
        for _ in range(READINGS):
            began = time.monotonic()
            lines = await read(reader)
            took.append(time.monotonic() - began)
            if len(lines) != READ_LINES:
                self._seen.missing.append(f"read {len(lines)} of {READ_LINES} lines back")
        self._seen.read_back_s = statistics.median(took)
        table = log_chunks.name if self._form.target == STAGELY else LINES_TABLE
        size = await self._scene.value(f"SELECT pg_total_relation_size('{table}')")
        self._seen.disk_per_line = size / self._lines_written()

    async def _read_chunks(self, resident: Resident) -> list[str]:
        """As the api reads a run's log, page by page; a chunk holds whole lines."""
        wanted = LogFilter(resident.environment_id, run_id=resident.run_id, stream=STREAM)
        lines: list[str] = []
        while True:
            page = await read_logs(self._scene.engine, wanted)
            for chunk in page:
                lines += chunk.data.decode().splitlines()
            if len(page) < LOG_PAGE:
                return lines
            wanted = replace(wanted, after=page[-1].id)

    async def _read_rows(self, resident: Resident) -> list[str]:
        connection = await asyncpg.connect(self._scene.database_url)
        try:
            query = f"SELECT line FROM {LINES_TABLE} WHERE run_id = $1 AND stream = $2 ORDER BY n"
            return [row[0] for row in await connection.fetch(query, resident.vm_id, STREAM)]
        finally:
            await connection.close()

    async def _count(self) -> Tally:
        """What Postgres has of everything that was written."""
        if self._form.target == STAGELY:
            return await self._count_ours()
        if self._form.stores == ROWS:
            there = await self._scene.count(LINES_TABLE)
        else:
            there = int(await self._scene.value(f"SELECT sum(length(data)) FROM {CHUNKS_TABLE}")) // LINE_BYTES
        return Tally(max(0, self._lines_written() - there), max(0, there - self._lines_written()), 0)

    async def _count_ours(self) -> Tally:
        found = []
        for writer in self._writers:
            lines = await self._read_chunks(self._scene.residents[writer.number])
            found.append(loglines.tally(lines, writer.number, writer.lines))
        return Tally(sum(t.lost for t in found), sum(t.doubled for t in found), sum(t.misplaced for t in found))

    # The agents' part.

    def _write(self, writer: Writer) -> None:
        writer.seq += 1
        text = loglines.frame_text(writer.number, writer.seq, writer.lines, LINES_PER_FRAME)
        writer.lines += LINES_PER_FRAME
        writer.waiting.append((writer.seq, time.monotonic()))
        self._crowd.lines[writer.number].send(frames.masked(frames.TEXT, text))

    def _fill(self, writer: Writer) -> None:
        while len(writer.waiting) < WINDOW:
            self._write(writer)

    def _acked(self, number: int, seq: int) -> None:
        writer, now = self._writers[number], time.monotonic()
        while writer.waiting and writer.waiting[0][0] <= seq:
            self._seen.lags_s.append(now - writer.waiting.popleft()[1])
        if self._refill_until is not None and now < self._refill_until:
            self._fill(writer)
        elif not writer.waiting and not any(other.waiting for other in self._writers):
            self._all_acked.set()

    async def _wait_acked(self) -> None:
        """Until every frame has its ACK. Raises Incomplete."""
        if not any(writer.waiting for writer in self._writers):
            return
        self._all_acked.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_DEADLINE_S):
                await self._all_acked.wait()
                return
        left = sum(len(writer.waiting) for writer in self._writers)
        notes = "; ".join([*self._crowd.complaints[-2:], *self._crowd.refusals[-2:]])
        raise Incomplete(f"{left} frames were not acknowledged within {ACK_DEADLINE_S:.0f} s. {notes}")

    def _lines_written(self) -> int:
        return sum(writer.lines for writer in self._writers)

    def _postgres_s(self) -> float:
        return proc.cpu_seconds(self._scene.stage.stores.postgres.pid)


def figures(name: str, seen: Seen) -> list[Measure]:
    """Without figures when something is missing."""
    if seen.missing:
        return []
    lags = [one * 1000 for one in seen.lags_s]
    values = [
        ("lost", float(seen.tally.lost), "lines"),
        ("doubled", float(seen.tally.doubled), "lines"),
        ("misplaced", float(seen.tally.misplaced), "lines"),
        ("steady", len(lags) * LINES_PER_FRAME / seen.steady.wall_s, "lines/s"),
        ("lag_p50", percentile(lags, 50), "ms"),
        ("lag_p99", percentile(lags, 99), "ms"),
        ("cpu", seen.steady.cpu_percent, "%"),
        ("cpu_per_line", seen.steady.cpu_s / (len(lags) * LINES_PER_FRAME) * 1e6, "us"),
        ("core_beside", seen.steady.beside_percent, "%"),
        ("postgres_cpu", 100 * seen.postgres_s / seen.steady.wall_s, "%"),
    ]
    if seen.read_back_s is not None:
        values += [
            ("most", seen.most_per_s, "lines/s"),
            ("most_cpu", seen.most.cpu_percent, "%"),
            ("read_back", seen.read_back_s * 1000, "ms"),
            ("disk_per_line", seen.disk_per_line, "bytes"),
        ]
    return [Measure(NAME, name, metric, round(value, 3), unit) for metric, value, unit in values]


def wrongs(tally: Tally) -> list[str]:
    """What is wrong with the lines in Postgres, as sentences."""
    found = {"are not there": tally.lost, "are there again": tally.doubled, "stand behind a later one": tally.misplaced}
    return [f"{count} lines {what}" for what, count in found.items() if count]


async def _make_tables(where: Scene) -> None:
    connection = await asyncpg.connect(where.database_url)
    try:
        await connection.execute(TABLES)
    finally:
        await connection.close()
