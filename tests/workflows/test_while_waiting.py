"""What comes while an environment waits: for a cloud, for GitHub, for its own end. Nothing is lost, nobody waits on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from providers.base import VmOrder
from providers.errors import CredentialsRejected, QuotaExceeded
from stagely.db.queries import lives, slots
from stagely.db.tables import build_slots, environments
from stagely.states import EnvironmentState
from tests.workflows.world import World, world
from workflows.environment import EnvironmentWorkflow
from workflows.messages import StopRequest, Timings, lease_workflow_id

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED
REAPED, TERMINATING = EnvironmentState.REAPED, EnvironmentState.TERMINATING
FOREVER = 10**6
IMPATIENT = Timings(debounce_s=0.2, boot_timeout_s=20, ttl_limit_s=5, answer_limit_s=1, unanswered_s=0.2)


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, boot_timeout_s=20)) as made:
        yield made


@pytest.fixture
async def impatient(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, IMPATIENT) as made:
        yield made


async def ready(here: World) -> str:
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY, sha)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    return sha


async def stop(here: World) -> None:
    await here.handle(1).execute_update(EnvironmentWorkflow.stop, StopRequest("ann"))


async def push(here: World) -> str:
    sha = here.forge.push(1)
    await here.webhook(1)
    return sha


async def test_a_pull_request_reopened_between_two_tries_of_a_look_is_deployed_again(here: World) -> None:
    sha = await ready(here)
    async with here.engine.begin() as db:  # What the first try did, whose answer was lost.
        await db.execute(update(environments).values(status=TERMINATING))
    await here.redis.flushdb()

    await here.webhook(1, "reopened")

    life = await here.until(1, READY, sha)
    assert await here.redis.exists(f"route:{life.hash}")
    assert await here.run_states() == ["completed", "completed"]


async def test_files_that_github_refuses_to_show_are_reported(here: World) -> None:
    here.forge.refuses_files = True
    here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED)
    assert life.failure is not None
    assert (life.failure["step"], life.failure["message"]) == ("plan", "the App may not read this repository's files")

    here.forge.refuses_files = False
    await here.until(1, READY, await push(here))


async def test_a_cloud_that_refuses_to_create_and_to_destroy_is_reported_at_once(here: World) -> None:
    def revoked(order: VmOrder) -> None:
        raise CredentialsRejected("the key was revoked")

    here.cloud.refuse_create, here.cloud.refuse_destroys = revoked, FOREVER
    here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED)
    assert life.failure is not None
    assert "the key was revoked" in life.failure["message"]
    assert "gone" not in await here.vm_states()

    here.cloud.refuse_destroys = 0
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATED)
    assert set(await here.vm_states()) == {"gone"}


async def test_closing_does_not_wait_for_room_in_a_full_account(here: World) -> None:
    def full(order: VmOrder) -> None:
        raise QuotaExceeded("server limit 10 reached")  # Asked again after a minute.

    here.cloud.refuse_create = full
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([call for call in here.cloud.journal if call.startswith("create")]) == 3)

    here.forge.close(1)
    await here.webhook(1, "closed")

    await here.until(1, TERMINATED)


async def test_a_machine_that_the_cloud_makes_after_its_order_was_taken_back_is_destroyed(here: World) -> None:
    here.cloud.gate.clear()
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([call for call in here.cloud.journal if call.startswith("create")]) == 3)
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATING)

    here.cloud.gate.set()

    await here.until(1, TERMINATED)
    made = {call.split()[1] for call in here.cloud.journal if call.startswith("create")}
    for vm_id in made:
        await here.until_closed(lease_workflow_id(vm_id))
    assert here.cloud.alive == {}


async def test_a_stop_does_not_wait_for_github(here: World) -> None:
    await ready(here)
    here.forge.is_away = True
    reads = here.forge.reads
    await here.webhook(1, "labeled")
    await here.until_true(lambda: here.forge.reads > reads)

    await stop(here)

    await here.until(1, TERMINATED)
    assert await here.handle(1).result() == "terminated"
    assert here.cloud.alive == {}


async def test_a_previews_time_ends_while_github_is_away(impatient: World) -> None:
    await ready(impatient)
    impatient.forge.is_away = True
    await impatient.webhook(1, "labeled")

    await impatient.until(1, REAPED)

    assert impatient.cloud.alive == {}
    impatient.forge.is_away = False
    assert await impatient.handle(1).result() in ("reaped", "terminated")


async def test_a_run_that_never_took_its_first_step_is_over_when_the_next_begins(here: World) -> None:
    first = await ready(here)
    life = await here.newest(1)
    assert life is not None
    async with here.engine.begin() as db:
        await lives.begin_run(db, life.id, "run-stale", first)
        await slots.enqueue(db, life.id, "run-stale", ["bld-stale"])

    await here.until(1, READY, await push(here))

    assert await here.run_states() == ["completed", "cancelled", "completed"]
    async with here.engine.connect() as db:
        assert (await db.execute(select(func.count()).select_from(build_slots))).scalar() == 0


async def test_a_push_between_a_stop_and_its_doing_begins_anew(here: World) -> None:
    await ready(here)
    (lost,) = here.cloud.alive
    here.cloud.refuse_destroys = FOREVER
    await here.client.get_workflow_handle(lease_workflow_id(lost)).terminate("an operator's mistake")
    await here.until_true(lambda: f"destroy {lost}" in here.cloud.journal)

    await stop(here)
    second = await push(here)
    here.cloud.refuse_destroys = 0

    await here.until(1, READY, second)


async def test_a_push_during_a_cancelled_environments_teardown_begins_anew(here: World) -> None:
    await ready(here)
    here.cloud.refuse_destroys = FOREVER
    await here.handle(1).cancel()
    await here.until(1, TERMINATING)

    second = await push(here)
    here.cloud.refuse_destroys = 0

    await here.until(1, READY, second)
    assert len(await here.run_states()) == 2


async def test_a_bug_with_one_comment_ends_neither_the_others_nor_the_worker(here: World) -> None:
    here.forge.breaks_comments = 1
    await ready(here)

    await here.until_comment("Preview ready")
