"""`bare`: a program of the shape of one environment's life whose activities do nothing. It is the limit.

Per environment: 25 activities one after the other (9 of the environment, 4 of the pipeline, 4 of each lease), a
pipeline child, two builder leases, a preview lease, 6 signals from outside (opened, the preview's first contact, two
build results, the deploy's result, closed), 4 inside, 4 upserts of a search attribute, one 24 h timer. That is the
shape that was measured before Stagely's own workflows were written: 234 to 256 events.

Workflows run in the sandbox, on the same three task queues as Stagely's. This file imports only what they need: each
run imports it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import SearchAttributeKey

WORKFLOWS, CORE, CLOUD = "bare-workflows", "bare-core", "bare-cloud"
PHASE = SearchAttributeKey.for_keyword("BenchPhase")
_LIMIT = timedelta(seconds=60)
_LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Step:
    """One empty activity. With an `owner`, the driver is told that an agent owes that workflow an answer."""

    name: str
    pr: int = 0
    owner: str = ""
    command_id: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    vm_id: str
    owner: str
    command_id: str


@dataclass(frozen=True, slots=True)
class BareActivities:
    """`tell` is the worker's line to the driver: where Stagely writes a row, this writes a line."""

    tell: Callable[[Step], None]

    @activity.defn
    async def step(self, order: Step) -> None:
        """Does nothing but say what the driver must play: an agent's answer, or that the environment is ready."""
        if order.owner or order.name == "ready":
            self.tell(order)


async def _do(step: Step, queue: str = CORE) -> None:
    await workflow.execute_activity_method(
        BareActivities.step, step, task_queue=queue, start_to_close_timeout=_LIMIT, summary=step.name
    )


@workflow.defn
class BareEnvironment:
    """From opened to closed; `pr` counts from 1."""

    def __init__(self) -> None:
        self._events: list[str] = []
        self._answers: set[str] = set()

    @workflow.signal
    def pull_request_event(self, action: str) -> None:
        self._events.append(action)

    @workflow.signal
    def agent_event(self, command_id: str) -> None:
        self._answers.add(command_id)

    @workflow.run
    async def run(self, pr: int) -> str:
        preview = await self._become_ready(pr)
        await workflow.wait_condition(lambda: "closed" in self._events, timeout=_LIFE, timeout_summary="time to live")
        await _do(Step("resolve"))
        await _do(Step("withdraw"))
        await preview.signal(BareLease.release)
        await preview
        self._show("terminated")
        await _do(Step("terminated"))
        return "terminated"

    async def _become_ready(self, pr: int) -> workflow.ChildWorkflowHandle[BareLease, None]:
        me = workflow.info().workflow_id
        await workflow.wait_condition(lambda: bool(self._events))
        await _do(Step("resolve"))
        await _do(Step("plan"))
        self._show("building")
        preview = await workflow.start_child_workflow(
            BareLease.run, Lease(f"{me}/preview", me, "online"), id=f"{me}/preview"
        )
        await _do(Step("building"))
        await workflow.execute_child_workflow(BarePipeline.run, me, id=f"{me}/run")
        await workflow.wait_condition(lambda: "online" in self._answers)
        self._show("deploying")
        await _do(Step("deploy", owner=me, command_id="deploy"))
        await workflow.wait_condition(lambda: "deploy" in self._answers)
        await _do(Step("route"))
        await preview.signal(BareLease.renew)
        self._show("ready")
        await _do(Step("ready", pr=pr))
        return preview

    def _show(self, phase: str) -> None:
        workflow.upsert_search_attributes([PHASE.value_set(phase)])


@workflow.defn
class BarePipeline:
    """Two builds side by side, then a merge. Its input is the id of its environment's workflow."""

    def __init__(self) -> None:
        self._answers: set[str] = set()

    @workflow.signal
    def agent_event(self, command_id: str) -> None:
        self._answers.add(command_id)

    @workflow.run
    async def run(self, environment: str) -> None:
        await _do(Step("building"))
        jobs = [asyncio.create_task(self._build(f"{environment}/{name}")) for name in ("web", "api")]  # noqa: TID251  # A TaskGroup wedges workflows.
        await workflow.wait(jobs)
        await _do(Step("merge"))

    async def _build(self, vm_id: str) -> None:
        lease = await workflow.start_child_workflow(
            BareLease.run, Lease(vm_id, workflow.info().workflow_id, vm_id), id=vm_id
        )
        await workflow.wait_condition(lambda: vm_id in self._answers)
        await lease.signal(BareLease.release)
        await _do(Step("built"))
        await lease


@dataclass(slots=True)
class _LeaseState:
    released: bool = False
    renewals: list[float] = field(default_factory=list)


@workflow.defn
class BareLease:
    """One VM: row, create, record, hold until released, destroy."""

    def __init__(self) -> None:
        self._state = _LeaseState()

    @workflow.signal
    def release(self) -> None:
        self._state.released = True

    @workflow.signal
    def renew(self) -> None:
        self._state.renewals.append(workflow.time())

    @workflow.run
    async def run(self, order: Lease) -> None:
        await _do(Step("ledger row"), CLOUD)
        await _do(Step("create"), CLOUD)
        await _do(Step("running", owner=order.owner, command_id=order.command_id), CLOUD)
        await workflow.wait_condition(lambda: self._state.released)
        await _do(Step("destroy"), CLOUD)
