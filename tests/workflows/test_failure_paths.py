"""What goes wrong around an environment: refusals, lost answers, slow creates. Nothing is lost, nothing leaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from stagely.db.tables import vms
from stagely.states import EnvironmentState
from tests.workflows.world import World, world
from workflows.environment import EnvironmentWorkflow
from workflows.messages import CommandOrder, FailureReport, StopRequest, Timings

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, boot_timeout_s=20)) as made:
        yield made


async def ready(here: World) -> str:
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY, sha)
    return sha


async def closed(here: World) -> None:
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATED)


async def test_github_refusing_to_show_the_pull_request_leaves_the_preview_and_its_clean_up_alone(here: World) -> None:
    await ready(here)
    here.forge.refuses_reading = True
    await here.webhook(1, "labeled", "refused")
    here.forge.refuses_reading = False

    await closed(here)

    assert here.cloud.alive == {}
    assert len([call for call in here.cloud.journal if call.startswith("create")]) == 3


async def test_cancelling_while_github_is_being_asked_takes_everything_down(here: World) -> None:
    await ready(here)
    here.forge.gate.clear()
    reads = here.forge.reads
    await here.webhook(1, "labeled")
    await here.until_true(lambda: here.forge.reads > reads)

    await here.handle(1).cancel()

    await here.until(1, TERMINATED)
    here.forge.gate.set()
    assert here.cloud.alive == {}


async def test_an_environment_that_cannot_begin_because_github_refuses_ends(here: World) -> None:
    here.forge.push(1)
    here.forge.refuses_reading = True

    await here.webhook(1, "opened")

    assert await here.handle(1).result() == "terminated"
    assert here.cloud.journal == []


async def test_a_cloud_that_refuses_to_destroy_is_asked_until_it_does(here: World) -> None:
    await ready(here)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    here.cloud.refuse_destroys = 3

    await closed(here)

    assert here.cloud.alive == {}
    assert set(await here.vm_states()) == {"gone"}


async def test_a_machine_that_is_made_after_its_environment_was_taken_down_is_destroyed(here: World) -> None:
    await ready(here)
    here.cloud.gate.clear()
    here.forge.push(1)
    await here.webhook(1)
    await here.until_true(lambda: len([c for c in here.cloud.journal if c.startswith("create")]) == 5)

    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until_true(lambda: len([c for c in here.cloud.journal if c.startswith("destroy")]) >= 3)
    here.cloud.gate.set()

    await here.until(1, TERMINATED)
    await here.until_true(lambda: here.cloud.alive == {})


async def test_a_preview_whose_address_is_recorded_late_is_routed_when_it_is(here: World) -> None:
    async def forget_address(order: CommandOrder) -> None:
        async with here.engine.begin() as db:
            await db.execute(update(vms).where(vms.c.id == order.vm_id).values(address=""))

    here.agents.before_deploy = forget_address
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until_true(lambda: any(order.deploy for order in here.agents.seen))
    (preview,) = {order.vm_id for order in here.agents.seen if order.deploy}
    async with here.engine.begin() as db:
        await db.execute(update(vms).where(vms.c.id == preview).values(address="10.0.0.9"))

    await here.until(1, READY, sha)


async def test_a_comment_that_cannot_be_written_holds_up_neither_deploy_nor_close(here: World) -> None:
    here.forge.comments_are_down = True
    await ready(here)

    await closed(here)
    assert here.cloud.alive == {}

    here.forge.comments_are_down = False
    await here.until_comment("Preview gone")


async def test_a_preview_lost_during_a_later_push_is_replaced(here: World) -> None:
    await ready(here)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    (lost,) = here.cloud.alive
    here.agents.answer = lambda order: "silent" if order.build else None
    second = here.forge.push(1)
    await here.webhook(1)
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build and o.build.sha == second]) == 2)

    await here.client.get_workflow_handle(f"vm/{lost}").terminate("an operator's mistake")
    await here.until_true(lambda: lost not in here.cloud.alive)
    here.agents.answer = lambda order: None
    await here.agents.answer_held_back()

    await here.until(1, READY, second)
    assert lost not in here.cloud.alive


async def test_a_refused_commit_is_reported_on_that_commit(here: World) -> None:
    first = await ready(here)
    second = here.forge.push(1, {"docker-compose.yml": "services: {a: {}}"})
    await here.webhook(1)

    await here.until(1, FAILED, second)
    await here.until_true(lambda: (second, "failure") in here.forge.statuses)
    assert (first, "failure") not in here.forge.statuses
    await here.until_comment(f"Commit `{second[:12]}`")


async def test_a_stopped_environment_does_not_come_back_with_a_label(here: World) -> None:
    await ready(here)
    await here.handle(1).execute_update(EnvironmentWorkflow.stop, StopRequest("ann"))
    await here.until(1, TERMINATED)
    await here.handle(1).result()

    await here.webhook(1, "labeled")
    await here.handle(1).result()
    assert here.cloud.alive == {}

    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)


async def test_a_superseded_run_is_cancelled_and_the_next_one_completed(here: World) -> None:
    first = here.forge.push(1)
    here.agents.answer = lambda order: "silent" if order.build and order.build.sha == first else None
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build]) == 2)

    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)

    assert await here.run_states() == ["cancelled", "completed"]


async def test_pushes_in_quick_succession_end_with_the_last_one_and_one_machine(here: World) -> None:
    for _ in range(5):
        last = here.forge.push(1)
        await here.webhook(1)

    await here.until(1, READY, last)

    builders = {order.vm_id for order in here.agents.seen if order.build}
    await here.until_true(lambda: len(set(here.cloud.alive) - builders) == 1 and not builders & set(here.cloud.alive))
    assert (await here.handle(1).describe()).status is WorkflowExecutionStatus.RUNNING


async def test_a_failed_start_of_a_later_version_shows_a_page_until_the_next_one_is_up(here: World) -> None:
    await ready(here)
    here.agents.answer = lambda order: FailureReport("up", "exited", "api", 1) if order.deploy else None
    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, FAILED, second)
    assert len(here.cloud.alive) == 1

    here.agents.answer = lambda order: None
    third = here.forge.push(1)
    await here.webhook(1)
    life = await here.until(1, READY, third)
    assert life.failure is None
