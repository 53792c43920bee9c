"""Where and when VMs are ordered: build slots, full accounts, sold out sizes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from providers.base import VmOrder
from providers.errors import NoCapacity, QuotaExceeded
from stagely.db.bootstrap import LOCAL_TEAM
from stagely.db.queries import environments
from stagely.db.queries.environments import EnvironmentFilter
from stagely.db.tables import build_slots, steps
from stagely.states import EnvironmentState
from tests.workflows.world import DEADLINE_S, POLL_S, World, world
from workflows.messages import Timings

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[World]:
    async with world(temporal_client, engine, redis, Timings(debounce_s=0.2, create_limit_s=4)) as made:
        yield made


def many(count: int) -> dict[str, str]:
    services = [f'  s{i:02}: {{build: s{i:02}, ports: ["{3000 + i}:80"]}}' for i in range(count)]
    return {"docker-compose.yml": "services:\n" + "\n".join(services)}


async def positions(here: World) -> list[int]:
    (view,) = await environments.list_environments(here.engine, LOCAL_TEAM, EnvironmentFilter(pr=1))
    return sorted(job.position for job in view.jobs if job.position is not None)


async def slots_taken(here: World) -> int:
    async with here.engine.connect() as db:
        return len((await db.execute(select(build_slots.c.build_id))).all())


async def test_fifty_builds_run_in_parallel_and_the_fifty_first_waits_with_its_position(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    async with world(temporal_client, engine, redis, Timings()) as here:
        here.agents.answer = lambda order: "silent" if order.build else None
        sha = here.forge.push(1, many(51))
        await here.webhook(1, "opened")
        await here.until_true(lambda: len([order for order in here.agents.seen if order.build]) == 50)

        assert await positions(here) == [1]
        assert len(here.cloud.alive) == 51  # 50 builders and the preview.
        here.agents.answer = lambda order: None
        await here.agents.answer_held_back()
        await here.until(1, READY, sha)
        assert len([order for order in here.agents.seen if order.build]) == 51
        assert await slots_taken(here) == 0


async def test_builds_of_a_closed_pull_request_leave_the_queue(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    async with world(temporal_client, engine, redis, Timings(), build_slots=1) as here:
        here.agents.answer = lambda order: "silent" if order.build else None
        here.forge.push(1, many(3))
        await here.webhook(1, "opened")
        await here.until_true(lambda: any(order.build for order in here.agents.seen))
        assert await positions(here) == [1, 2]

        here.forge.close(1)
        await here.webhook(1, "closed")
        await here.until(1, TERMINATED)

        assert (await slots_taken(here), here.cloud.alive) == (0, {})


async def boot_details(here: World) -> set[str]:
    async with here.engine.connect() as db:
        return set((await db.execute(select(steps.c.detail).where(steps.c.name == "vm_boot"))).scalars())


async def test_a_full_account_is_waited_for_and_the_timeline_says_why(here: World) -> None:
    def full(order: VmOrder) -> None:
        raise QuotaExceeded("local refused: server limit 10 reached", retry_after_s=0.3)

    here.cloud.refuse_create = full
    sha = here.forge.push(1)
    await here.webhook(1, "opened")
    waiting = {"waiting, because local refused: server limit 10 reached"}
    async with asyncio.timeout(DEADLINE_S):
        while await boot_details(here) != waiting:  # noqa: ASYNC110  # Rows give no events.
            await asyncio.sleep(POLL_S)

    here.cloud.refuse_create = None

    await here.until(1, READY, sha)


async def test_an_account_that_stays_full_ends_the_push_with_the_quotas_name(here: World) -> None:
    def full(order: VmOrder) -> None:
        raise QuotaExceeded("local refused: server limit 10 reached", retry_after_s=0.5)

    here.cloud.refuse_create = full
    sha = here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED, sha)

    assert life.failure is not None
    assert life.failure["code"] == "quota_exceeded"
    assert "server limit 10 reached" in life.message
    await here.until_true(lambda: "server limit 10 reached" in here.forge.comments.get(1, ""))


async def test_a_sold_out_size_gives_way_to_the_next_one_for_builders_and_preview(
    temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    def sold_out(order: VmOrder) -> None:
        if order.size != "large":
            raise NoCapacity(f"local has no {order.size or 'default'} left in {order.region or 'any region'}")

    sizes = [("east", "small"), ("west", "large")]
    async with world(temporal_client, engine, redis, Timings(), alternatives=sizes) as here:
        here.cloud.refuse_create = sold_out
        sha = here.forge.push(1)
        await here.webhook(1, "opened")
        await here.until(1, READY, sha)
        preview = set(here.cloud.alive)

        second = here.forge.push(1)
        await here.webhook(1)
        await here.until(1, READY, second)

        await here.until_true(lambda: set(here.cloud.alive) == preview)


async def test_everything_sold_out_ends_the_push_and_says_so(here: World) -> None:
    def sold_out(order: VmOrder) -> None:
        raise NoCapacity("local has no servers left in any region")

    here.cloud.refuse_create = sold_out
    sha = here.forge.push(1)
    await here.webhook(1, "opened")

    life = await here.until(1, FAILED, sha)

    assert life.failure is not None
    assert life.failure["code"] == "no_capacity"
