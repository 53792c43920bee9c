"""One round: so many pull requests opened, ready, closed and gone, on engines of their own, and what that took."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from bench.lifecycle import proc
from bench.lifecycle.link import Link
from bench.lifecycle.servers import Server
from bench.lifecycle.targets import Target
from bench.lifecycle.wire import Kind

RUNNING = "ExecutionStatus = 'Running'"
LOOK_S = 0.2
REST_S = 3.0  # Between ready and closing: what still runs after "ready" ends, then memory is read.
HISTORIES_AT_ONCE = 16
WEBHOOKS_S = 30.0  # At least this long for Temporal to take them: a busy machine is not what is measured.


@dataclass(frozen=True, slots=True)
class Crowd:
    """`size` pull requests, opened at once or one each `pace_s`; all are closed at once.

    `slack_s` is what a round may take beyond its share for each of them.
    """

    size: int
    pace_s: float = 0.0
    slack_s: float = 60.0

    @property
    def name(self) -> str:
        return f"one_per_second_{self.size}" if self.pace_s else f"at_once_{self.size}"

    @property
    def limit_s(self) -> float:
        """For opening, and again for closing: five times what two cores took for a program of 240 events."""
        return self.slack_s + self.size * (4.0 + self.pace_s)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since each process began."""

    worker: float
    server: float
    postgres: float
    driver: float

    def since(self, before: Usage) -> Usage:
        return Usage(
            self.worker - before.worker,
            self.server - before.server,
            self.postgres - before.postgres,
            self.driver - before.driver,
        )

    def plus(self, other: Usage) -> Usage:
        return self.since(Usage(-other.worker, -other.server, -other.postgres, -other.driver))


@dataclass(frozen=True, slots=True)
class Observed:
    """`cpu` is of opening and closing, without the rest between. `missing`: what did not happen or is left over."""

    opening_s: float = 0.0
    closing_s: float = 0.0
    cpu: Usage = field(default_factory=lambda: Usage(0, 0, 0, 0))
    at_rest: tuple[int, int] = (0, 0)
    peak: tuple[int, int] = (0, 0)
    events: int = 0
    first_activity_s: tuple[float, ...] = ()
    vms_made: int = 0
    missing: tuple[str, ...] = ()


class Incomplete(Exception):
    """Not everything became ready, or ended, in time."""


@dataclass(slots=True)
class Round:
    crowd: Crowd
    target: Target
    client: Client
    link: Link
    server: Server
    postgres: Server

    async def run(self) -> Observed:
        """Play it. Never raises for what the measured program failed to do: that is in `missing`."""
        observed = Observed()
        async with asyncio.TaskGroup() as group:
            agents = group.create_task(self.target.play_agents())
            try:
                observed = await self._opened(observed)
                observed = await self._closed(observed)
            except (Incomplete, TimeoutError) as error:
                observed = replace(observed, missing=(str(error) or "Temporal did not take all webhooks in time",))
            agents.cancel()
        counted = await self.link.ask(Kind.COUNT)
        left = await self.target.left_over()
        if counted.alive:
            left.append(f"{counted.alive} of {counted.made} VMs are alive")
        return replace(observed, vms_made=counted.made, missing=(*observed.missing, *left))

    async def _opened(self, observed: Observed) -> Observed:
        before, began = self._usage(), _now()
        async with asyncio.timeout(max(self.crowd.limit_s, WEBHOOKS_S)):
            async with asyncio.TaskGroup() as group:
                for pr in range(1, self.crowd.size + 1):
                    await asyncio.sleep(max(0.0, began + (pr - 1) * self.crowd.pace_s - _now()))
                    group.create_task(self.target.webhook(pr, "opened"))
        await self._until(self._not_ready, began)
        took, used = _now() - began, self._usage().since(before)
        await asyncio.sleep(REST_S)
        resting = (proc.memory(self.link.pid).now_kib, proc.memory(self.server.pid).now_kib)
        return replace(observed, opening_s=took, cpu=used, at_rest=resting)

    async def _closed(self, observed: Observed) -> Observed:
        await self.link.ask(Kind.CLOSE_ALL)
        before, began = self._usage(), _now()
        async with asyncio.timeout(max(self.crowd.limit_s, WEBHOOKS_S)):
            async with asyncio.TaskGroup() as group:
                for pr in range(1, self.crowd.size + 1):
                    group.create_task(self.target.webhook(pr, "closed"))
        await self._until(self._not_ended, began)
        took, used = _now() - began, self._usage().since(before)
        peak = (proc.memory(self.link.pid).peak_kib, proc.memory(self.server.pid).peak_kib)
        observed = replace(observed, closing_s=took, cpu=observed.cpu.plus(used), peak=peak)
        return replace(observed, events=await self._events(), first_activity_s=await self._first_activities())

    async def _until(self, missing: Callable[[], Awaitable[str]], began: float) -> None:
        while text := await missing():
            if _now() - began > self.crowd.limit_s:
                raise Incomplete(f"{text} after {self.crowd.limit_s:.0f} s")
            await asyncio.sleep(LOOK_S)

    async def _not_ready(self) -> str:
        ready = await self.target.ready()
        return "" if ready >= self.crowd.size else f"only {ready} of {self.crowd.size} environments are ready"

    async def _not_ended(self) -> str:
        """Whatever runs counts: a pipeline or lease that outlives its environment as well."""
        running = await self.client.count_workflows(RUNNING)
        return f"{running.count} workflows still run" if running.count else ""

    async def _events(self) -> int:
        """History events of all workflows of the crowd together."""
        return sum([found.history_length async for found in self.client.list_workflows() if _is_ours(found.id)])

    async def _first_activities(self) -> tuple[float, ...]:
        gate = asyncio.Semaphore(HISTORIES_AT_ONCE)

        async def one(pr: int) -> float:
            async with gate:
                return await self._first_activity(pr)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(pr)) for pr in range(1, self.crowd.size + 1)]
        return tuple(task.result() for task in tasks)

    async def _first_activity(self, pr: int) -> float:
        """Seconds between the webhook's event and the start of the first activity, by the server's clock."""
        began = 0.0
        handle = self.client.get_workflow_handle(self.target.workflow_id(pr))
        async for event in handle.fetch_history_events(page_size=50):
            at = event.event_time.ToNanoseconds() / 1e9
            began = began or at
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                return at - began
        raise Incomplete(f"the workflow of pull request {pr} never started an activity")

    def _usage(self) -> Usage:
        return Usage(
            proc.cpu_seconds(self.link.pid),
            proc.cpu_seconds(self.server.pid),
            proc.cpu_seconds(self.postgres.pid),
            sum(os.times()[:2]),
        )


def _is_ours(workflow_id: str) -> bool:
    """Not a sweep that a Schedule started meanwhile."""
    return workflow_id.startswith(("env/", "run/", "vm/"))


def _now() -> float:
    return asyncio.get_running_loop().time()
