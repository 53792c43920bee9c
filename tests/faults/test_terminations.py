"""An operator's `workflow terminate` and `cancel`, of every kind of run: nothing leaks, and the preview comes back."""

from __future__ import annotations

import asyncio

from temporalio.client import WorkflowExecutionStatus

from stagely.db.tables import vms
from stagely.states import VmRole
from tests.faults.stage import FAILED, READY, Stage
from tests.workflows.world import POLL_S
from workflows.messages import RetryRequest, lease_workflow_id, pipeline_workflow_id

REASON = "an operator's mistake"


async def ready(here: Stage) -> str:
    """The preview's VM, once the pull request has one and nothing else."""
    sha = here.world.forge.push(1)
    await here.world.webhook(1, "opened")
    await here.until_ready(1, sha)
    return next(iter(here.world.cloud.alive))


async def building(here: Stage) -> list[str]:
    """The builders' VMs, while they build and do not come to an end."""
    here.world.agents.answer = lambda order: "silent" if order.build else None
    here.world.forge.push(1)
    await here.world.webhook(1, "opened")
    await here.world.until_true(lambda: len([order for order in here.world.agents.seen if order.build]) == 2)
    return [order.vm_id for order in here.world.agents.seen if order.build]


def go_on(here: Stage) -> None:
    """From now on builds end well."""
    here.world.agents.answer = lambda order: None


async def run_id(here: Stage) -> str:
    life = await here.world.newest(1)
    assert life is not None
    return life.run_id


async def until_dead(here: Stage, vm_ids: list[str]) -> None:
    await here.world.until_true(lambda: not set(vm_ids) & set(here.world.cloud.alive))


async def closed(here: Stage) -> None:
    here.world.forge.close(1)
    await here.world.webhook(1, "closed")
    await here.until_gone(1)


async def status_of(here: Stage, workflow_id: str) -> WorkflowExecutionStatus | None:
    return (await here.world.client.get_workflow_handle(workflow_id).describe()).status


# --- terminate ------------------------------------------------------------------------------------------------------


async def test_terminated_environment_comes_back_with_the_next_webhook_on_one_machine(here: Stage) -> None:
    first = await ready(here)
    await here.world.handle(1).terminate(REASON)

    sha = here.world.forge.push(1)
    await here.world.webhook(1)

    await here.until_ready(1, sha)
    assert first not in here.world.cloud.alive
    await closed(here)


async def test_terminated_environment_comes_back_with_a_sweep_when_no_webhook_comes(here: Stage) -> None:
    await ready(here)
    await here.world.handle(1).terminate(REASON)

    await here.sweep()

    await here.settled(1, is_open=True)
    await closed(here)


async def test_terminated_environment_takes_its_builders_with_it(here: Stage) -> None:
    builders = await building(here)

    await here.world.handle(1).terminate(REASON)

    await until_dead(here, builders)
    go_on(here)
    await here.sweep()
    await here.sweep()  # The second one gives back the lost run's build slots.
    await here.settled(1, is_open=True)
    await closed(here)


async def test_terminated_environment_of_a_pull_request_that_closes_then_is_taken_down_by_sweeps(here: Stage) -> None:
    await ready(here)
    await here.world.handle(1).terminate(REASON)
    here.world.forge.close(1)

    await here.sweep()
    await here.sweep()

    await here.until_gone(1)


async def test_terminated_environment_and_lease_leave_nothing_after_two_sweeps(here: Stage) -> None:
    preview = await ready(here)
    here.world.forge.close(1)
    await here.world.handle(1).terminate(REASON)
    await here.world.client.get_workflow_handle(lease_workflow_id(preview)).terminate(REASON)

    await here.sweep()
    await here.sweep()

    await here.until_gone(1)


async def test_terminated_pipeline_is_a_failed_push_that_can_be_retried(here: Stage) -> None:
    builders = await building(here)

    await here.world.client.get_workflow_handle(pipeline_workflow_id(await run_id(here))).terminate(REASON)

    await here.world.until(1, FAILED)
    await until_dead(here, builders)
    go_on(here)
    await here.world.handle(1).execute_update("retry", RetryRequest("ann"))
    await here.settled(1, is_open=True)
    await closed(here)


async def test_terminated_builder_lease_costs_one_more_builder_and_leaks_none(here: Stage) -> None:
    lost, _ = await building(here)

    go_on(here)
    await here.world.client.get_workflow_handle(lease_workflow_id(lost)).terminate(REASON)
    await here.world.agents.answer_held_back()

    await until_dead(here, [lost])
    await here.world.until(1, READY)
    await here.settled(1, is_open=True)
    await closed(here)


async def test_terminated_preview_lease_is_replaced_by_a_new_machine(here: Stage) -> None:
    lost = await ready(here)

    await here.world.client.get_workflow_handle(lease_workflow_id(lost)).terminate(REASON)

    await until_dead(here, [lost])
    await here.settled(1, is_open=True)
    await closed(here)


# --- cancel ---------------------------------------------------------------------------------------------------------


async def test_cancelled_environment_takes_everything_down_in_code(here: Stage) -> None:
    await ready(here)

    await here.world.handle(1).cancel()

    await here.until_gone(1)
    assert (await here.world.handle(1).describe()).status is WorkflowExecutionStatus.CANCELED


async def test_environment_cancelled_while_it_builds_takes_everything_down_in_code(here: Stage) -> None:
    await building(here)

    await here.world.handle(1).cancel()

    await here.until_gone(1)


async def test_environment_cancelled_twice_while_it_is_taken_down_leaves_nothing(here: Stage) -> None:
    await ready(here)
    here.world.forge.close(1)
    await here.world.webhook(1, "closed")

    await here.world.handle(1).cancel()
    await here.world.handle(1).cancel()

    await here.until_gone(1)


async def test_cancelled_pipeline_is_a_failed_push_that_can_be_retried(here: Stage) -> None:
    builders = await building(here)

    await here.world.client.get_workflow_handle(pipeline_workflow_id(await run_id(here))).cancel()

    await here.world.until(1, FAILED)
    await until_dead(here, builders)
    go_on(here)
    await here.world.handle(1).execute_update("retry", RetryRequest("ann"))
    await here.settled(1, is_open=True)
    await closed(here)


async def test_cancelled_builder_lease_costs_one_more_builder_and_leaks_none(here: Stage) -> None:
    lost, _ = await building(here)

    go_on(here)
    await here.world.client.get_workflow_handle(lease_workflow_id(lost)).cancel()
    await here.world.agents.answer_held_back()

    await until_dead(here, [lost])
    await here.world.until(1, READY)
    await here.settled(1, is_open=True)
    await closed(here)


async def test_cancelled_preview_lease_is_replaced_by_a_new_machine(here: Stage) -> None:
    lost = await ready(here)

    await here.world.client.get_workflow_handle(lease_workflow_id(lost)).cancel()

    await until_dead(here, [lost])
    await here.settled(1, is_open=True)
    assert await status_of(here, lease_workflow_id(lost)) is WorkflowExecutionStatus.COMPLETED
    await closed(here)


async def test_lease_cancelled_while_its_machine_is_made_leaks_none(here: Stage) -> None:
    here.world.cloud.gate.clear()
    sha = here.world.forge.push(1)
    await here.world.webhook(1, "opened")
    await here.world.until_vm(lambda row: row.role == VmRole.PREVIEW)
    async with here.world.engine.connect() as db:
        made = (await db.execute(vms.select().where(vms.c.role == VmRole.PREVIEW))).one()

    await here.world.client.get_workflow_handle(lease_workflow_id(made.id)).cancel()
    await asyncio.sleep(POLL_S)
    here.world.cloud.gate.set()

    await here.until_ready(1, sha)
    assert made.id not in here.world.cloud.alive
    await closed(here)
