"""The reaper against the real workflows: what an operator terminates, the sweeps put right."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from stagely.ids import mint
from stagely.states import EnvironmentState
from tests.workflows.world import World, world
from workflows.messages import WORKFLOW_QUEUE, Timings, lease_workflow_id
from workflows.reaper import ReaperWorkflow
from workflows.sweeps import SweepInput, SweepReport

READY, TERMINATED = EnvironmentState.READY, EnvironmentState.TERMINATED
YOUNG_TOO = SweepInput(min_age_s=0.0, apart_s=0.0)


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, boot_timeout_s=20)) as made:
        yield made


async def swept(here: World) -> SweepReport:
    return await here.client.execute_workflow(
        ReaperWorkflow.run, YOUNG_TOO, id=mint("reaper"), task_queue=WORKFLOW_QUEUE
    )


async def terminated(here: World) -> str:
    """A ready preview whose environment and lease were terminated; its VM's id."""
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    vm_id = next(iter(here.cloud.alive))
    await here.handle(1).terminate("by an operator")
    await here.client.get_workflow_handle(lease_workflow_id(vm_id)).terminate("by an operator")
    return vm_id


async def test_terminated_environment_of_a_closed_pull_request_leaves_nothing_after_two_sweeps(here: World) -> None:
    await terminated(here)
    here.forge.close(1)

    await swept(here)
    await swept(here)

    await here.until(1, TERMINATED)
    assert here.cloud.alive == {}
    assert set(await here.vm_states()) == {"gone"}
    assert await here.redis.keys("route:*") == []


async def test_terminated_environment_of_an_open_pull_request_comes_back_on_one_vm(here: World) -> None:
    lost = await terminated(here)

    await swept(here)
    await swept(here)

    await here.until_true(lambda: len(here.cloud.alive) == 1 and lost not in here.cloud.alive)
    await here.until(1, READY)
    assert (await here.handle(1).describe()).status is WorkflowExecutionStatus.RUNNING


async def test_closed_pull_request_that_nobody_heard_of_is_found(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)
    here.forge.close(1)

    await swept(here)

    await here.until(1, TERMINATED)
    assert here.cloud.alive == {}


async def test_sweeps_of_a_healthy_preview_change_nothing(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    before = list(here.cloud.journal)
    await swept(here)

    report = await swept(here)

    assert sum(report.seen.values()) == 0
    assert here.cloud.journal == before
