"""`kill -9` of the gateway under all its agents: it starts at once, and they come back as agents do.

The bare peer checks each HELLO by itself: its Ed25519 signature, one row, one Redis key.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial

from agent.connection import Backoff
from bench.gateway import frames, machine
from bench.gateway.agents import Crowd, Line
from bench.gateway.bare import Duty
from bench.gateway.residents import heartbeat
from bench.gateway.stage import PREVIEW, Played, Stage, in_turn, scene
from bench.gateway.targets import BARE, STAGELY, Target, target
from bench.lifecycle import proc
from bench.lifecycle.figures import percentile
from bench.measures import Measure
from stagely.settings import Settings

NAME = "herd"
HEARTBEAT_S = 30.0
LIMIT_S = 180.0  # For all to be back; six times what they may take.
REST_S = 3.0
FIRST_WAIT_S = float(Settings.model_fields["reconnect_first_wait_s"].default)


@dataclass(slots=True)
class Seen:
    """`back_s`: of each agent the seconds from the kill to its WELCOME; `attempts_s`: what its dial then took."""

    restart_s: float = 0.0
    back_s: list[float] = field(default_factory=list)
    attempts_s: list[float] = field(default_factory=list)
    refused: int = 0
    broken: int = 0
    timed_out: int = 0
    cpu_s: float = 0.0
    peak_kib: int = 0
    missing: list[str] = field(default_factory=list)


async def play(stage: Stage, agents: int) -> Played:
    return await in_turn(NAME, {name: partial(_of_target, stage, agents, name) for name in (BARE, STAGELY)})


async def _of_target(stage: Stage, agents: int, name: str) -> Played:
    async with scene(stage, f"{NAME}_{name}", agents, PREVIEW) as where:
        log = stage.folder / f"{NAME}-{name}.log"
        with target(name, where, log, HEARTBEAT_S, Duty(checks_hello=True)) as server:
            await server.listening()
            seen = await Herd(server, Crowd(server.port, where.residents), agents).run()
    return Played(figures(name, agents, seen), seen.missing)


class Herd:
    def __init__(self, server: Target, crowd: Crowd, agents: int) -> None:
        self._server = server
        self._crowd = crowd
        self._agents = agents
        self._killed_at = 0.0
        self._back: dict[int, float] = {}
        self._all_back = asyncio.Event()
        self._beat = frames.masked(frames.TEXT, heartbeat())
        self._seen = Seen()

    async def run(self) -> Seen:
        came = await self._crowd.come(range(self._agents))
        if came < self._agents:
            self._seen.missing += [f"{came} of {self._agents} agents got in", *self._crowd.complaints[-2:]]
            return self._seen
        await asyncio.sleep(REST_S)
        killed_at = await self._server.scene.value("SELECT extract(epoch FROM now())")
        try:
            async with asyncio.timeout(LIMIT_S):
                await self._kill_and_wait()
        except TimeoutError:
            self._seen.missing.append(f"{len(self._back)} of {self._agents} were back after {LIMIT_S:.0f} s")
        self._seen.peak_kib = proc.memory(self._server.pid).peak_kib
        self._seen.back_s = list(self._back.values())
        await asyncio.sleep(REST_S)
        await self._check(killed_at)
        await self._crowd.leave()
        return self._seen

    async def _kill_and_wait(self) -> None:
        async with asyncio.TaskGroup() as group:

            def come_back(line: Line) -> None:
                group.create_task(self._return(line.number))

            self._crowd.on_lost = come_back
            self._killed_at = time.monotonic()
            self._server.kill()
            self._server.start()
            await self._server.listening()
            self._seen.restart_s = time.monotonic() - self._killed_at
            start_cpu_s = machine.cpu_seconds(self._server.pid)
            await self._all_back.wait()
            self._seen.cpu_s = machine.cpu_seconds(self._server.pid) - start_cpu_s
            self._crowd.on_lost = None

    async def _return(self, number: int) -> None:
        """As agent/connection.py does it, with its own back-off."""
        backoff = Backoff(FIRST_WAIT_S)
        wait_s = backoff.after_loss(time.monotonic())
        while True:
            await asyncio.sleep(wait_s)
            began, was_refused = time.monotonic(), False
            try:
                line = await self._crowd.connect(number)
            except ConnectionRefusedError:
                self._seen.refused, was_refused = self._seen.refused + 1, True
            except TimeoutError:
                self._seen.timed_out += 1
            except OSError:
                self._seen.broken += 1
            else:
                line.send(self._beat)
                self._note_back(number, began)
                return
            wait_s = backoff.after_failure(was_refused, time.monotonic())

    def _note_back(self, number: int, began: float) -> None:
        now = time.monotonic()
        self._seen.attempts_s.append(now - began)
        self._back[number] = now - self._killed_at  # Who was lost again counts from its last return.
        if len(self._back) == self._agents:
            self._all_back.set()

    async def _check(self, killed_at: float) -> None:
        """Every VM has been seen since, and nobody was dropped again."""
        seen = await self._server.scene.count("vms WHERE last_seen_at > to_timestamp(:at)", at=killed_at)
        if seen != self._agents:
            self._seen.missing.append(f"Postgres has seen {seen} of {self._agents} VMs since the kill")
        if self._crowd.open_count != self._agents:
            self._seen.missing += [f"{self._crowd.open_count} of {self._agents} are connected in the end"]
            self._seen.missing += [*self._crowd.complaints[-2:], *self._crowd.refusals[-2:]]


def figures(name: str, agents: int, seen: Seen) -> list[Measure]:
    """Without figures when something is missing."""
    if seen.missing:
        return []
    attempts = [one * 1000 for one in seen.attempts_s]
    values = [
        ("agents", float(agents), "agents"),
        ("restart", seen.restart_s, "s"),
        *((f"back_{percent}", percentile(seen.back_s, percent), "s") for percent in (50, 90, 99, 100)),
        ("attempt_p50", percentile(attempts, 50), "ms"),
        ("attempt_p99", percentile(attempts, 99), "ms"),
        ("refused", float(seen.refused), "attempts"),
        ("broken", float(seen.broken), "attempts"),
        ("timed_out", float(seen.timed_out), "attempts"),
        ("cpu_per_return", seen.cpu_s / agents * 1e6, "us"),
        ("memory_peak", seen.peak_kib / 1024, "MB"),
    ]
    return [Measure(NAME, name, metric, round(value, 3), unit) for metric, value, unit in values]
