"""Many agents that do little: memory, handshakes, sparse heartbeats, and what stays behind when all of them left."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from bench.gateway import frames
from bench.gateway.agents import Crowd, Line
from bench.gateway.beats import beat_evenly
from bench.gateway.machine import Spent
from bench.gateway.residents import heartbeat
from bench.gateway.stage import PREVIEW, Incomplete, Played, Stage, in_turn, scene
from bench.gateway.targets import BARE, STAGELY, Target, target
from bench.lifecycle.figures import percentile
from bench.measures import Measure

NAME = "density"
WARM_UP = 20  # Agents that come and go before anything is measured: imports, pools, prepared statements.
SETTLE_S = 3.0  # Longer than any batch or sweep of the gateway.
PROBED = 20  # Every so many agents ask for an answer behind each heartbeat: an answer costs the server, too.
QUICK_BEATS = 120  # An hour's at one in 30 s.
LEAST_ROUND_S = 0.02  # Between quick heartbeats of one agent: a quarter of the limit of 200 messages a second.
ROUND_PART = 250  # Lines that are sent to at once; then the last one must answer.
HANDSHAKES = 500  # In one go. The gateway gives each 5 s to say HELLO, so they must be over before.
HANDSHAKE_ROUNDS = 5
ANSWER_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    agents: int
    seconds: float
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """KiB of the target: `empty` and `full` of agents, after quick heartbeats, and after all left and came again."""

    empty_kib: int
    full_kib: int
    beaten_kib: int
    returned_kib: int
    beating: Spent
    beats: int
    answers_s: list[float]
    admission: Spent
    handshake_us: float
    resting_cpu: float
    quick: Spent
    dropped: int
    missing: tuple[str, ...]


async def play(stage: Stage, plan: Plan) -> Played:
    return await in_turn(NAME, {name: partial(_of_target, stage, plan, name) for name in (BARE, STAGELY)})


async def _of_target(stage: Stage, plan: Plan, name: str) -> Played:
    async with scene(stage, f"{NAME}_{name}", plan.agents, PREVIEW) as where:
        with target(name, where, stage.folder / f"{NAME}-{name}.log", plan.heartbeat_s) as server:
            await server.listening()
            seen = await Density(plan, server, Crowd(server.port, where.residents)).run()
    return Played(figures(name, plan, seen), list(seen.missing))


class Density:
    def __init__(self, plan: Plan, server: Target, crowd: Crowd) -> None:
        self._plan = plan
        self._server = server
        self._crowd = crowd
        self._missing: list[str] = []
        self._beat = frames.masked(frames.TEXT, heartbeat())

    async def run(self) -> Seen:
        await self._come(range(min(WARM_UP, self._plan.agents)))
        await self._leave()
        empty_kib = self._server.pss_kib()
        meter = self._server.meter()
        await self._come(range(self._plan.agents))
        admission = meter.read()
        await self._first_beats()
        full_kib = self._server.pss_kib()
        beating, beats, answers_s = await self._steady()
        await self._check_rows()
        quick = await self._quick_beats()
        beaten_kib = self._server.pss_kib()
        await self._leave()
        await self._come(range(self._plan.agents))
        await self._first_beats()
        returned_kib = self._server.pss_kib()
        await self._leave()
        resting_cpu = await self._at_rest()
        return Seen(
            empty_kib=empty_kib, full_kib=full_kib, beaten_kib=beaten_kib, returned_kib=returned_kib, beating=beating,
            beats=beats, answers_s=answers_s, admission=admission,
            handshake_us=await self._handshakes(resting_cpu), resting_cpu=resting_cpu, quick=quick,
            dropped=self._crowd.lost, missing=tuple(self._missing),
        )  # fmt: skip

    async def _come(self, numbers: range) -> None:
        """Raises Incomplete when not all get in."""
        came = await self._crowd.come(numbers)
        if came < len(numbers):
            notes = "; ".join([*self._crowd.complaints[-2:], *self._crowd.refusals[-2:]])
            raise Incomplete(f"{len(numbers) - came} of {len(numbers)} agents did not get in. {notes}")

    async def _leave(self) -> None:
        await self._crowd.leave()
        await asyncio.sleep(SETTLE_S)

    async def _first_beats(self) -> None:
        """As every agent behind its WELCOME."""
        self._send_beats(self._crowd.lines.values())
        await self._all_answer("its first heartbeat")
        await asyncio.sleep(SETTLE_S)

    async def _steady(self) -> tuple[Spent, int, list[float]]:
        """Heartbeats evenly spread over their interval: what they took, how many they were, and the answers."""
        self._crowd.answers_s.clear()
        meter = self._server.meter()
        sent = await beat_evenly(self._crowd, self._beat, self._plan.seconds, self._plan.heartbeat_s, PROBED)
        spent = meter.read()
        await self._answered("heartbeats")
        if self._crowd.lost:
            self._missing += [f"{self._crowd.lost} agents were dropped", *self._crowd.complaints[-2:]]
        return spent, sent, list(self._crowd.answers_s)

    async def _quick_beats(self) -> Spent:
        """So many heartbeats of each agent, as fast as the target takes them."""
        meter = self._server.meter()
        lines = list(self._crowd.lines.values())
        for _ in range(QUICK_BEATS):
            began = time.monotonic()
            for start in range(0, len(lines), ROUND_PART):
                part = lines[start : start + ROUND_PART]
                self._send_beats(part)
                self._crowd.probe(part[-1])
                await self._answered("quick heartbeats")
            await asyncio.sleep(max(0.0, LEAST_ROUND_S - (time.monotonic() - began)))
        await self._all_answer("its quick heartbeats")
        spent = meter.read()
        await asyncio.sleep(SETTLE_S)
        return spent

    async def _all_answer(self, what: str) -> None:
        """Every line's answer: with it the target has read all that the line brought. Raises Incomplete."""
        for line in self._crowd.lines.values():
            self._crowd.probe(line)
        await self._answered(what)

    async def _answered(self, what: str) -> None:
        if not await self._crowd.all_answered(ANSWER_DEADLINE_S):
            unanswered, lost = self._crowd.unanswered, self._crowd.lost
            notes = "; ".join([*self._crowd.complaints[-2:], *self._crowd.refusals[-2:]])
            raise Incomplete(f"{unanswered} answers to {what} did not come, {lost} agents were dropped. {notes}")

    def _send_beats(self, lines: Iterable[Line]) -> None:
        for line in lines:
            line.send(self._beat)

    async def _check_rows(self) -> None:
        """What Postgres says of the heartbeats. The bare server keeps none."""
        if self._server.name != STAGELY:
            return
        recent_s = 2 * self._plan.heartbeat_s + SETTLE_S
        condition = "last_seen_at > now() - make_interval(secs => :s)"
        seen = await self._server.scene.count(f"vms WHERE {condition}", s=recent_s)
        shown = await self._server.scene.count(
            "environments WHERE json_array_length(services) = 3 AND last_heartbeat IS NOT NULL"
        )
        if (seen, shown) != (self._plan.agents, self._plan.agents):
            self._missing.append(f"{self._plan.agents} agents beat; {seen} VMs and {shown} environments have it")

    async def _handshakes(self, resting_cpu: float) -> float:
        """Microseconds of the target's CPU for one upgrade without HELLO, over what it needs at rest; the median."""
        found = []
        crowd = Crowd(self._server.port, self._crowd.residents, says_hello=False)
        count = min(HANDSHAKES, self._plan.agents)
        for _ in range(HANDSHAKE_ROUNDS):
            meter = self._server.meter()
            came = await crowd.come(range(count))
            spent = meter.read()
            found.append((spent.cpu_s - resting_cpu * spent.wall_s) / max(came, 1) * 1e6)
            await crowd.leave()
            await asyncio.sleep(SETTLE_S)
            if came < count:
                self._missing.append(f"{count - came} of {count} upgrades failed")
        return statistics.median(found)

    async def _at_rest(self) -> float:
        """CPU seconds per second with no agent at all."""
        meter = self._server.meter()
        await asyncio.sleep(SETTLE_S)
        spent = meter.read()
        return spent.cpu_s / spent.wall_s


def figures(name: str, plan: Plan, seen: Seen) -> list[Measure]:
    """Without figures when something is missing: half a crowd costs less."""
    if seen.missing:
        return []
    answers = [one * 1000 for one in seen.answers_s]
    values = [
        ("agents", float(plan.agents), "agents"),
        ("memory_per_agent", (seen.full_kib - seen.empty_kib) / plan.agents, "KB"),
        ("memory_empty", seen.empty_kib / 1024, "MB"),
        ("memory_full", seen.full_kib / 1024, "MB"),
        ("growth_after_quick_beats", seen.beaten_kib / seen.full_kib, "x"),
        ("growth_after_return", seen.returned_kib / seen.full_kib, "x"),
        ("cpu_per_handshake", seen.handshake_us, "us"),
        ("cpu_per_admission", seen.admission.cpu_s / plan.agents * 1e6, "us"),
        ("admissions", plan.agents / seen.admission.wall_s, "1/s"),
        ("beats", seen.beats / seen.beating.wall_s, "1/s"),
        ("beats_cpu", seen.beating.cpu_percent, "%"),
        ("resting_cpu", 100 * seen.resting_cpu, "%"),
        ("beats_core_beside", seen.beating.beside_percent, "%"),
        ("cpu_per_quick_beat", seen.quick.cpu_s / (plan.agents * QUICK_BEATS) * 1e6, "us"),
        ("acknowledged_p50", percentile(answers, 50), "ms"),
        ("acknowledged_p99", percentile(answers, 99), "ms"),
        ("dropped", float(seen.dropped), "agents"),
    ]
    return [Measure(NAME, name, metric, round(value, 3), unit) for metric, value, unit in values]
