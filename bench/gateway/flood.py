"""Agents that flood and agents that never read, beside good ones: what they take in memory, and of others' time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.gateway import frames, hostile, machine
from bench.gateway.agents import Crowd
from bench.gateway.beats import beat_evenly
from bench.gateway.machine import Spent
from bench.gateway.residents import Resident, heartbeat
from bench.gateway.stage import PREVIEW, Played, Stage, in_turn, scene
from bench.gateway.targets import BARE, STAGELY, Target, TargetFailed, target
from bench.lifecycle.figures import percentile
from bench.lifecycle.link import tail
from bench.measures import Measure
from tests.services import child

NAME = "flood"
GOOD, FLOODERS, DEAF = 200, 20, 50
HEARTBEAT_S = 30.0  # What WELCOME says; good agents beat quicker, so that there is something to measure.
BEAT_EVERY_S = 0.5
SETTLE_S = 3.0
SAMPLE_S = 0.25
ANSWER_DEADLINE_S = 30.0
START_TIMEOUT_S = 60.0
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of each part: good agents alone (before and again after), with the deaf, and with all others."""

    alone_s: float
    deaf_s: float
    flood_s: float


@dataclass(slots=True)
class Part:
    """`answers_s` of good agents; `peak_kib` of the target."""

    answers_s: list[float] = field(default_factory=list)
    peak_kib: int = 0
    spent: Spent = field(default_factory=lambda: Spent(0, 0, 0))


@dataclass(slots=True)
class Seen:
    empty_kib: int = 0
    alone: Part = field(default_factory=Part)
    deaf: Part = field(default_factory=Part)
    flood: Part = field(default_factory=Part)
    again: Part = field(default_factory=Part)
    flooders: hostile.Report = field(default_factory=hostile.Report)
    deaf_ones: hostile.Report = field(default_factory=hostile.Report)
    missing: list[str] = field(default_factory=list)


async def play(stage: Stage, plan: Plan) -> Played:
    return await in_turn(NAME, {name: partial(_of_target, stage, plan, name) for name in (BARE, STAGELY)})


async def _of_target(stage: Stage, plan: Plan, name: str) -> Played:
    async with scene(stage, f"{NAME}_{name}", GOOD + FLOODERS + DEAF, PREVIEW) as where:
        with target(name, where, stage.folder / f"{NAME}-{name}.log", HEARTBEAT_S) as server:
            await server.listening()
            with machine.unhindered():
                seen = await Flood(plan, server, where.residents).run()
    return Played(figures(name, seen), seen.missing)


class Flood:
    def __init__(self, plan: Plan, server: Target, residents: Sequence[Resident]) -> None:
        self._plan = plan
        self._server = server
        self._flooders = residents[GOOD : GOOD + FLOODERS]
        self._deaf = residents[GOOD + FLOODERS :]
        self._crowd = Crowd(server.port, residents[:GOOD])
        self._beat = frames.masked(frames.TEXT, heartbeat())
        self._seen = Seen()

    async def run(self) -> Seen:
        seen, plan = self._seen, self._plan
        if await self._crowd.come(range(GOOD)) < GOOD:
            seen.missing += ["good agents did not get in", *self._crowd.complaints[-2:]]
            return seen
        await self._part(plan.alone_s / 4)  # What the first minute imports and connects is no growth by others.
        seen.alone = await self._part(plan.alone_s)
        seen.empty_kib = self._server.pss_kib()
        async with self._hostile(hostile.DEAF, self._deaf) as seen.deaf_ones:
            seen.deaf = await self._part(plan.deaf_s)
            async with self._hostile(hostile.FLOOD, self._flooders) as seen.flooders:
                seen.flood = await self._part(plan.flood_s)
        await asyncio.sleep(SETTLE_S)
        seen.again = await self._part(plan.alone_s)
        await self._check_rows()
        if self._crowd.lost:
            seen.missing += [f"{self._crowd.lost} good agents were dropped", *self._crowd.complaints[-2:]]
        await self._crowd.leave()
        return seen

    async def _check_rows(self) -> None:
        """That Postgres has the good ones' heartbeats of just now. The bare server keeps none."""
        if self._server.name != STAGELY:
            return
        recent = "last_seen_at > now() - make_interval(secs => :s) AND id = ANY(:ids)"
        ids = [resident.vm_id for resident in self._crowd.residents]
        seen = await self._server.scene.count(f"vms WHERE {recent}", s=self._plan.alone_s, ids=ids)
        if seen != GOOD:
            self._seen.missing.append(f"{GOOD} good agents beat, Postgres has it of {seen}")

    async def _part(self, seconds: float) -> Part:
        self._crowd.answers_s.clear()
        part, meter = Part(), self._server.meter()
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(self._sample(part))
            await beat_evenly(self._crowd, self._beat, seconds, BEAT_EVERY_S, 1)
            part.spent = meter.read()
            if not await self._crowd.all_answered(ANSWER_DEADLINE_S):
                self._seen.missing.append(f"{self._crowd.unanswered} heartbeats of good agents have no answer")
                self._crowd.unanswered = 0
            sampling.cancel()
        self._server.check_alive()
        part.answers_s = list(self._crowd.answers_s)
        return part

    async def _sample(self, part: Part) -> None:
        while self._server.is_alive:
            part.peak_kib = max(part.peak_kib, self._server.pss_kib())
            await asyncio.sleep(SAMPLE_S)

    @asynccontextmanager
    async def _hostile(self, kind: str, residents: Sequence[Resident]) -> AsyncIterator[hostile.Report]:
        """Their process, once all of them are connected; its report is filled when the block ends."""
        folder = self._server.scene.stage.folder
        file, log = folder / f"{self._server.name}-{kind}.json", folder / f"{self._server.name}-{kind}.log"
        hostile.write_residents(file, residents)
        orders = hostile.Orders(kind, self._server.port, str(file))
        argv = [sys.executable, "-m", "bench.gateway.hostile", orders.to_text()]
        report = hostile.Report()
        with ExitStack() as stack:
            process = stack.enter_context(child(argv, log))
            await _ready(process, kind, log)
            yield report
        _fill(report, _text(log).splitlines()[-1])


def figures(name: str, seen: Seen) -> list[Measure]:
    """Without figures when something is missing."""
    if seen.missing:
        return []
    alone, deaf, flood, again = (
        [one * 1000 for one in part.answers_s] for part in (seen.alone, seen.deaf, seen.flood, seen.again)
    )
    # The quieter of the two: what the others leave behind must not become the measure of what is normal.
    without = min(percentile(alone, 99), percentile(again, 99))
    peak_kib = max(seen.deaf.peak_kib, seen.flood.peak_kib)
    values = [
        ("growth", (peak_kib - seen.empty_kib) / 1024, "MB"),
        ("growth_per_deaf", max(0, seen.deaf.peak_kib - seen.empty_kib) / DEAF, "KB"),
        ("good_p50_before", percentile(alone, 50), "ms"),
        ("good_p99_before", percentile(alone, 99), "ms"),
        ("good_p99_after", percentile(again, 99), "ms"),
        ("good_p99_with_deaf", percentile(deaf, 99), "ms"),
        ("good_p50_with_all", percentile(flood, 50), "ms"),
        ("good_p99_with_all", percentile(flood, 99), "ms"),
        ("good_p99_ratio", percentile(flood, 99) / without, "x"),
        ("cpu_with_deaf", seen.deaf.spent.cpu_percent, "%"),
        ("cpu_with_all", seen.flood.spent.cpu_percent, "%"),
        ("core_beside", seen.flood.spent.beside_percent, "%"),
        ("flood_sent", seen.flooders.sent_bytes / seen.flooders.seconds / _MIB, "MiB/s"),
        ("flood_logs_taken", seen.flooders.taken_log_bytes / seen.flooders.seconds / _MIB, "MiB/s"),
        ("flooders_closed", float(seen.flooders.closed), "times"),
        ("deaf_closed", float(seen.deaf_ones.closed), "times"),
    ]
    return [Measure(NAME, name, metric, round(value, 3), unit) for metric, value, unit in values]


async def _ready(process: subprocess.Popen[bytes], kind: str, log: Path) -> None:
    """Wait until all hostile agents are connected. Raises TargetFailed."""
    end = time.monotonic() + START_TIMEOUT_S
    while hostile.READY not in _text(log):
        if process.poll() is not None or time.monotonic() > end:
            raise TargetFailed(f"the {kind} agents did not get in.{tail(log)}")
        await asyncio.sleep(SAMPLE_S)


def _fill(report: hostile.Report, line: str) -> None:
    try:
        fields = json.loads(line)
    except ValueError:
        raise TargetFailed(f"hostile agents ended without a report: {line[:200]}") from None
    for name, value in fields.items():
        setattr(report, name, value)


def _text(log: Path) -> str:
    return log.read_text() if log.exists() else ""
