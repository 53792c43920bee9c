"""The reaper's schedule and the certificate's: one of each, whoever asks for it and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleOverlapPolicy,
)
from temporalio.service import RPCError
from temporalio.worker import Worker

from workflows.certificate import CertificateWorkflow
from workflows.issuance import CertificateInput, CertificateState
from workflows.messages import CERTIFICATE_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE
from workflows.reaper import ReaperWorkflow
from workflows.schedules import CERTIFICATE, REAPER, ensure_certificate, ensure_reaper
from workflows.sweeps import Sweep, SweepInput, SweepStart

DEADLINE_S = 30.0


@pytest.fixture
async def schedule(temporal_client: Client) -> AsyncIterator[ScheduleHandle]:
    handle = temporal_client.get_schedule_handle(REAPER)
    yield handle
    await handle.delete()


async def ids(client: Client) -> list[str]:
    return [found.id async for found in await client.list_schedules()]


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not claim():  # noqa: ASYNC110  # An activity tells it in another worker's turn.
            await asyncio.sleep(0.02)


async def test_five_workers_at_once_make_one_schedule(temporal_client: Client, schedule: ScheduleHandle) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(ensure_reaper(temporal_client, SweepInput()))
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(ensure_reaper(temporal_client, SweepInput(silence_s=60)))

    found = (await schedule.describe()).schedule
    interval = found.spec.intervals[0].every
    assert isinstance(found.action, ScheduleActionStartWorkflow)
    assert (interval, found.spec.jitter) == (timedelta(minutes=5), timedelta(seconds=30))
    assert (found.policy.overlap, found.policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, timedelta(minutes=10))
    assert [one for one in await ids(temporal_client) if one != REAPER] == []


async def test_new_order_replaces_the_old_one_and_a_pause_stays(
    temporal_client: Client, schedule: ScheduleHandle
) -> None:
    await ensure_reaper(temporal_client, SweepInput())
    await schedule.pause(note="maintenance")

    await ensure_reaper(temporal_client, SweepInput(silence_s=60), every_s=60)

    found = (await schedule.describe()).schedule
    assert (found.state.paused, found.state.note) == (True, "maintenance")
    assert found.spec.intervals[0].every == timedelta(minutes=1)


async def test_schedule_starts_a_sweep_with_its_order(temporal_client: Client, schedule: ScheduleHandle) -> None:
    begun: list[SweepStart] = []

    @activity.defn(name="begin_sweep")
    async def begin(start: SweepStart) -> Sweep:
        begun.append(start)
        return Sweep(start.sweep_id, start.order, 5)

    await ensure_reaper(temporal_client, SweepInput(silence_s=61))
    async with (
        Worker(temporal_client, task_queue=WORKFLOW_QUEUE, workflows=[ReaperWorkflow]),
        Worker(temporal_client, task_queue=CORE_QUEUE, activities=[begin]),
    ):
        await schedule.trigger()
        await until(lambda: bool(begun))
        await _end(temporal_client, schedule)

    assert begun[0].order == SweepInput(silence_s=61)


async def test_certificate_is_looked_after_at_once_and_then_by_the_hour(temporal_client: Client) -> None:
    handle = temporal_client.get_schedule_handle(CERTIFICATE)
    looked: list[CertificateInput] = []

    @activity.defn(name="inspect_certificate")
    async def inspect(order: CertificateInput) -> CertificateState:
        looked.append(order)
        return CertificateState(expires_at=1.0)

    async with (
        Worker(temporal_client, task_queue=WORKFLOW_QUEUE, workflows=[CertificateWorkflow]),
        Worker(temporal_client, task_queue=CERTIFICATE_QUEUE, activities=[inspect]),
    ):
        await ensure_certificate(temporal_client, CertificateInput("old.example.com"))
        await until(lambda: bool(looked))
        await ensure_certificate(temporal_client, CertificateInput("new.example.com"))
        found = await handle.describe()
        await handle.delete()

    spec, policy = found.schedule.spec, found.schedule.policy
    assert looked == [CertificateInput("old.example.com")]
    assert (spec.intervals[0].every, spec.jitter) == (timedelta(hours=1), timedelta(minutes=6))
    assert policy.overlap == ScheduleOverlapPolicy.SKIP
    assert isinstance(found.schedule.action, ScheduleActionStartWorkflow)
    assert found.info.num_actions == 1


async def _end(client: Client, schedule: ScheduleHandle) -> None:
    """The sweep would ask for activities that no worker of this test has."""
    for action in (await schedule.describe()).info.running_actions:
        assert isinstance(action, ScheduleActionExecutionStartWorkflow)
        try:
            await client.get_workflow_handle(action.workflow_id).terminate("end of the test")
        except RPCError:
            continue
