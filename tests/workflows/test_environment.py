from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowFailureError

from edge.routes import RouteStatus, decode, key_of
from stagely.states import EnvironmentState
from tests.workflows.world import World, world
from workflows.environment import EnvironmentWorkflow
from workflows.messages import FailureReport, StopRequest, Timings, pipeline_workflow_id

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, boot_timeout_s=20)) as made:
        yield made


async def test_an_opened_pull_request_becomes_a_routed_preview_and_is_gone_after_closing(here: World) -> None:
    sha = here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, READY, sha)
    route = decode(await here.redis.get(key_of(life.hash)) or b"")
    preview = next(iter(here.cloud.alive.values()))
    assert (route.status, route.ip, route.port, route.pr) == (RouteStatus.READY, preview.address, 9443, 1)

    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATED)
    assert await here.handle(1).result() == "terminated"
    assert here.cloud.alive == {}
    assert set(await here.vm_states()) == {"gone"}
    assert await here.redis.keys("route:*") == []
    await here.until_comment("Preview gone")


async def test_both_images_are_built_on_machines_of_their_own_and_deployed_by_digest(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)

    builds = [order for order in here.agents.seen if order.build]
    deploy = next(order.deploy for order in here.agents.seen if order.deploy)
    assert sorted(order.build.target.name for order in builds if order.build) == ["api", "web"]
    assert len({order.vm_id for order in builds}) == 2
    assert [image.service for image in deploy.images] == ["web", "api"]
    assert all("@sha256:" in image.reference for image in deploy.images)
    assert [order.pull for order in here.agents.seen if order.kind == "prepare"] == [("redis:8",)]


async def test_services_that_share_a_build_are_built_once_and_all_run_its_image(here: World) -> None:
    compose = """
services:
  web: &app {build: ., image: app, ports: ["80:80"]}
  jobs: {<<: *app, command: work}
"""
    here.forge.push(1, {"docker-compose.yml": compose})
    await here.webhook(1, "opened")
    await here.until(1, READY)

    deploy = next(order.deploy for order in here.agents.seen if order.deploy)
    assert len([order for order in here.agents.seen if order.build]) == 1
    assert [image.service for image in deploy.images] == ["web", "jobs"]


async def test_a_second_push_reuses_the_preview_machine(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)
    first = set(here.cloud.alive)

    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)

    assert await _previews(here) == first


async def test_the_latest_commit_wins_when_a_push_comes_during_a_build(here: World) -> None:
    first = here.forge.push(1)
    here.agents.answer = lambda order: "silent" if order.build and order.build.sha == first else None
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build]) == 2)

    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)

    assert [order.deploy.sha for order in here.agents.seen if order.deploy] == [second]
    assert len(await _previews(here)) == 1


async def test_a_failing_build_says_which_target_its_exit_code_and_last_lines_and_frees_all_machines(
    here: World,
) -> None:
    broken = FailureReport("build", "RUN make ended with 2", "api", 2, ("cc main.c", "error: no main"))
    here.agents.answer = lambda order: broken if order.build and order.build.target.name == "api" else None
    here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED)
    await here.until_true(lambda: here.cloud.alive == {})
    await here.until_true(lambda: "Build failed" in here.forge.comments.get(1, ""))
    assert life.failure == {
        "step": "build", "message": "RUN make ended with 2", "subject": "api", "exit_code": 2,
        "tail": ["cc main.c", "error: no main"], "code": "",
    }  # fmt: skip
    assert "**api**: RUN make ended with 2 (exit code 2)" in here.forge.comments[1]
    assert "error: no main" in here.forge.comments[1]
    pipeline = here.client.get_workflow_handle(pipeline_workflow_id(life.run_id))
    shown = await pipeline.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert "| failed: RUN make ended with 2 |" in shown.current_details


async def test_a_preview_that_never_gets_healthy_fails_and_its_machine_is_gone(here: World) -> None:
    sick = FailureReport("health", "api is unhealthy", "api", None, ("connection refused",))
    here.agents.answer = lambda order: sick if order.deploy else None
    here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED)
    await here.until_true(lambda: here.cloud.alive == {})
    route = decode(await here.redis.get(key_of(life.hash)) or b"")
    assert (route.status, route.ip) == (RouteStatus.FAILED, "")


async def test_a_push_after_a_failure_heals_the_environment(here: World) -> None:
    here.agents.answer = lambda order: FailureReport("health", "sick", "api") if order.deploy else None
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, FAILED)

    here.agents.answer = lambda order: None
    second = here.forge.push(1)
    await here.webhook(1)

    life = await here.until(1, READY, second)
    assert life.failure is None


async def test_a_failed_build_of_a_later_push_leaves_the_running_version_routed(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)

    here.agents.answer = lambda order: FailureReport("build", "no", "api", 1) if order.build else None
    second = here.forge.push(1)
    await here.webhook(1)
    life = await here.until(1, FAILED, second)

    route = decode(await here.redis.get(key_of(life.hash)) or b"")
    assert route.status is RouteStatus.READY
    await here.until_true(lambda: len(here.cloud.alive) == 1)  # The builder goes after the failure was written.


async def test_an_unacceptable_repository_orders_no_machine_and_says_what_to_mend(here: World) -> None:
    here.forge.push(1, {"docker-compose.yml": "services: {a: {}}"})
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED)

    assert life.message == ("docker-compose.yml:1: services/a: has neither `image` nor `build`. Give it one of them.")
    assert here.cloud.journal == []


async def test_a_lost_answer_of_the_cloud_orders_no_second_machine(here: World) -> None:
    here.cloud.lose_next_answer = True
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)

    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATED)
    assert here.cloud.alive == {}


async def test_the_same_delivery_twice_deploys_once(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened", "delivery-1")
    await here.webhook(1, "opened", "delivery-1")
    await here.until(1, READY)
    await here.webhook(1, "opened", "delivery-1")
    await here.webhook(1, "edited", "delivery-2")

    assert len([order for order in here.agents.seen if order.deploy]) == 1


async def test_closing_during_a_build_leaves_nothing(here: World) -> None:
    here.agents.answer = lambda order: "silent"
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build]) == 2)

    here.forge.close(1)
    await here.webhook(1, "closed")

    await here.until(1, TERMINATED)
    assert here.cloud.alive == {}
    assert set(await here.vm_states()) == {"gone"}


async def test_a_reopened_pull_request_gets_a_new_environment_with_a_new_url(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    first = await here.until(1, READY)
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.until(1, TERMINATED)

    here.forge.reopen(1)
    await here.webhook(1, "reopened")

    second = await here.until(1, READY)
    assert second.id != first.id
    assert second.hash != first.hash


async def test_a_stopped_environment_is_taken_down_though_its_pull_request_is_open(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)

    await here.handle(1).execute_update(EnvironmentWorkflow.stop, StopRequest("ann"))

    await here.until(1, TERMINATED)
    assert here.cloud.alive == {}


async def test_a_preview_machine_that_vanishes_is_replaced(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    life = await here.until(1, READY)
    (lost,) = here.cloud.alive

    await here.client.get_workflow_handle(f"vm/{lost}").terminate("an operator's mistake")
    await here.until_true(lambda: lost not in here.cloud.alive and len(here.cloud.alive) > 0)
    await here.until_true(lambda: len([o for o in here.agents.seen if o.deploy]) == 2)

    assert (await here.until(1, READY)).hash == life.hash


async def test_a_builder_that_never_comes_online_is_replaced_once(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, boot_timeout_s=1.5)) as here:
        here.agents.stays_offline = lambda vm_id: len(here.agents.online) == 0 and len(here.cloud.journal) < 5
        here.forge.push(1)
        await here.webhook(1, "opened")

        await here.until(1, READY)

        assert len(await _previews(here)) == 1


async def test_cancelling_the_workflow_takes_everything_down(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)

    await here.handle(1).cancel()

    with pytest.raises(WorkflowFailureError):
        await here.handle(1).result()
    life = await here.newest(1)
    assert life is not None
    assert life.state is TERMINATED
    assert here.cloud.alive == {}


async def _previews(here: World) -> set[str]:
    """The living machines once builders are gone."""
    builders = {order.vm_id for order in here.agents.seen if order.build}
    await here.until_true(lambda: not builders & set(here.cloud.alive))
    return set(here.cloud.alive)
