"""What people ask of an environment, and what becomes of it when nobody asks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from stagely.states import EnvironmentState
from tests.workflows.world import World, world
from workflows.messages import (
    ApproveRequest,
    Asked,
    ExtendRequest,
    FailureReport,
    PinRequest,
    RedeployRequest,
    RetryRequest,
    StopRequest,
    Timings,
)

READY, FAILED, REAPED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.REAPED
TERMINATED, AWAITING = EnvironmentState.TERMINATED, EnvironmentState.AWAITING_APPROVAL
HOUR = 3600.0


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2)) as made:
        yield made


@pytest.fixture
async def brief(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    """Previews live for four seconds here, and are warned about one second before."""
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, ttl_limit_s=4)) as made:
        yield made


async def ready(here: World) -> str:
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY, sha)
    return sha


async def ask(here: World, update: str, request: object) -> Asked:
    answer = await here.handle(1).execute_update(update, request, result_type=Asked)
    assert isinstance(answer, Asked)
    return answer


async def refused(here: World, update: str, request: object) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await ask(here, update, request)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.type or ""


async def test_a_preview_is_warned_about_in_its_comment_and_reaped_at_its_end(brief: World) -> None:
    await ready(brief)
    await brief.until_true(lambda: "It is taken down at" in brief.forge.comments.get(1, ""))

    await brief.until(1, REAPED)

    assert brief.cloud.alive == {}
    await brief.until_true(lambda: "Preview gone" in brief.forge.comments[1])
    assert len(brief.forge.comments) == 1


async def test_an_extended_preview_lives_on_and_its_machines_deadline_with_it(here: World) -> None:
    await ready(here)
    before = await here.until(1, READY)

    answer = await ask(here, "extend", ExtendRequest(48 * HOUR, "ann"))

    assert answer.expires_at == pytest.approx(time.time() + 72 * HOUR, abs=60)
    await here.until_life(1, lambda life: life.expires_at != before.expires_at)
    await here.until_vm(lambda vm: vm.expires_at.timestamp() > time.time() + 77 * HOUR)


async def test_a_pinned_preview_outlives_its_time_and_an_unpinned_one_does_not(brief: World) -> None:
    await ready(brief)
    await ask(brief, "pin", PinRequest(True, "ann"))
    life = await brief.until_life(1, lambda life: life.is_pinned)
    assert life.expires_at is None
    await brief.until_true(lambda: "Pinned" in brief.forge.comments[1])

    answer = await ask(brief, "pin", PinRequest(False, "ann"))

    assert answer.expires_at is not None
    await brief.until(1, REAPED)


@pytest.mark.parametrize("seconds", [0.0, -5.0, float("nan"), 40 * 24 * HOUR])
async def test_an_extension_that_makes_no_sense_is_refused_and_changes_nothing(here: World, seconds: float) -> None:
    await ready(here)

    assert await refused(here, "extend", ExtendRequest(seconds)) == "too_long"


async def test_a_redeploy_builds_the_same_commit_again_on_the_same_preview_machine(here: World) -> None:
    sha = await ready(here)
    preview = set(here.cloud.alive)

    await ask(here, "redeploy", RedeployRequest("ann"))

    await here.until_runs(["completed", "completed"])
    assert len([order for order in here.agents.seen if order.build and order.build.sha == sha]) == 4
    await here.until_true(lambda: set(here.cloud.alive) == preview)


async def test_a_retry_after_a_failed_start_builds_nothing_again(here: World) -> None:
    here.agents.answer = lambda order: FailureReport("up", "exited", "api", 1) if order.deploy else None
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, FAILED, sha)
    here.agents.answer = lambda order: None

    await ask(here, "retry", RetryRequest("ann"))

    await here.until(1, READY, sha)
    assert len([order for order in here.agents.seen if order.build]) == 2
    await here.until_runs(["failed", "completed"])


async def test_a_retry_after_a_failed_build_builds_only_what_failed(here: World) -> None:
    sha = here.forge.push(1, {"docker-compose.yml": TWO, "stagely.yaml": "version: 1\nkeep_going: true\n"})
    here.agents.answer = lambda order: (
        FailureReport("build", "no", "api", 1) if order.build and order.build.target.name == "api" else None
    )
    await here.webhook(1, "opened")
    await here.until(1, FAILED, sha)
    here.agents.answer = lambda order: None

    await ask(here, "retry", RetryRequest("ann"))

    await here.until(1, READY, sha)
    built = sorted(order.build.target.name for order in here.agents.seen if order.build)
    assert built == ["api", "api", "web"]
    deploy = next(order.deploy for order in here.agents.seen if order.deploy)
    assert [image.service for image in deploy.images] == ["web", "api"]


async def test_a_retry_without_a_failure_is_refused(here: World) -> None:
    await ready(here)

    assert await refused(here, "retry", RetryRequest("ann")) == "nothing_failed"


async def test_a_stopped_environment_refuses_everything_but_being_stopped_again(here: World) -> None:
    await ready(here)
    here.cloud.refuse_destroys = 2
    await ask(here, "stop", StopRequest("ann"))

    assert await refused(here, "redeploy", RedeployRequest("ann")) == "ending"
    assert await ask(here, "stop", StopRequest("bob")) == Asked()
    await here.until(1, TERMINATED)


async def test_nothing_of_a_foreign_commit_runs_before_it_is_approved_and_the_next_one_asks_again(here: World) -> None:
    first = here.forge.push(1, is_foreign=True)
    await here.webhook(1, "opened")
    await here.until(1, AWAITING, first)
    await here.until_true(lambda: "Waiting for approval" in here.forge.comments.get(1, ""))
    assert here.cloud.journal == []
    assert await refused(here, "approve", ApproveRequest("0" * 40)) == "head_moved"

    await ask(here, "approve", ApproveRequest(first, "ann"))
    await here.until(1, READY, first)

    second = here.forge.push(1, is_foreign=True)
    await here.webhook(1)
    await here.until(1, AWAITING, second)
    assert await refused(here, "redeploy", RedeployRequest("ann")) == "awaiting_approval"
    assert {order.build.sha for order in here.agents.seen if order.build} == {first}


async def test_a_preview_lost_while_a_foreign_commit_waits_is_not_replaced_by_that_commit(here: World) -> None:
    first = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY, first)
    second = here.forge.push(1, is_foreign=True)
    await here.webhook(1)
    await here.until(1, AWAITING, second)
    (lost,) = here.cloud.alive

    await here.client.get_workflow_handle(f"vm/{lost}").cancel()
    await here.until_true(lambda: here.cloud.alive == {})
    await here.until_route_is_gone(1)

    assert {order.build.sha for order in here.agents.seen if order.build} == {first}
    await ask(here, "approve", ApproveRequest(second, "ann"))
    await here.until(1, READY, second)


async def test_a_redeploy_asked_for_while_a_foreign_commit_arrives_does_not_run_it(here: World) -> None:
    first = here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY, first)
    second = here.forge.push(1, is_foreign=True)
    here.forge.gate.clear()
    reads = here.forge.reads
    await here.webhook(1)
    await here.until_true(lambda: here.forge.reads > reads)

    await ask(here, "redeploy", RedeployRequest("ann"))
    here.forge.gate.set()

    await here.until(1, AWAITING, second)
    await ask(here, "approve", ApproveRequest(second, "ann"))
    await here.until(1, READY, second)
    assert len([order for order in here.agents.seen if order.deploy]) == 2


async def test_approving_what_does_not_wait_is_refused(here: World) -> None:
    sha = await ready(here)

    assert await refused(here, "approve", ApproveRequest(sha)) == "not_waiting"


async def test_an_environment_at_rest_continues_as_new_and_still_knows_everything(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2), history_limit=20) as here:
        sha = await ready(here)
        first = (await here.handle(1).describe()).raw_description.workflow_execution_info.first_run_id
        await here.until_run_changes(1, first)
        preview = set(here.cloud.alive)
        await ask(here, "extend", ExtendRequest(HOUR))

        await here.webhook(1, "labeled")
        second = here.forge.push(1)
        await here.webhook(1)
        await here.until(1, READY, second)
        await here.until_true(lambda: set(here.cloud.alive) == preview)
        assert sha != second

        here.forge.close(1)
        await here.webhook(1, "closed")
        await here.until(1, TERMINATED)
        await here.until_true(lambda: here.cloud.alive == {})


async def test_a_preview_machine_that_ends_after_a_continue_as_new_is_noticed_and_replaced(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2), history_limit=20) as here:
        await ready(here)
        first = (await here.handle(1).describe()).raw_description.workflow_execution_info.first_run_id
        await here.until_run_changes(1, first)
        (lost,) = here.cloud.alive

        await here.client.get_workflow_handle(f"vm/{lost}").cancel()

        await here.until_true(lambda: len(here.cloud.alive) == 1 and lost not in here.cloud.alive)
        await here.until(1, READY)


TWO = """
services:
  web: {build: web, ports: ["80:80"]}
  api: {build: api}
"""
