"""Actions from the request to what becomes of a preview, with the real workflows behind the api."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from stagely.cli.api import ApiClient
from stagely.cli.asking import action, ask
from stagely.cli.refusal import NotAcceptable
from stagely.settings import Settings
from stagely.states import EnvironmentState
from tests.api.world import eventually, run_api
from tests.workflows.world import World, world
from workflows.messages import Timings

AUTH = {"Authorization": "Bearer token"}
READY, TERMINATED = EnvironmentState.READY, EnvironmentState.TERMINATED
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class System:
    """The world around the workflows, and an api that speaks to them."""

    world: World
    web: httpx.AsyncClient

    async def act(self, environment_id: str, action: str, body: dict[str, object] | None = None) -> httpx.Response:
        return await self.web.post(f"/v1/api/environments/{environment_id}/{action}", json=body, headers=AUTH)

    async def shown(self, environment_id: str) -> dict[str, object]:
        answer = await self.web.get(f"/v1/api/environments/{environment_id}", headers=AUTH)
        found = answer.json()
        assert isinstance(found, dict)
        return found


@pytest.fixture
async def system(
    settings: Settings, temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> AsyncIterator[System]:
    timings = Timings(debounce_s=0.2, boot_timeout_s=20)
    async with world(temporal_client, engine, redis, timings) as here, run_api(settings) as web:
        yield System(here, web)


async def test_extended_preview_shows_its_new_end_and_a_pinned_one_none(system: System) -> None:
    system.world.forge.push(301)
    await system.world.webhook(301, "opened")
    life = await system.world.until(301, READY)
    before = (await system.shown(life.id))["expires_at"]

    extended = await system.act(life.id, "extend", {"duration": "12h"})
    too_far = await system.act(life.id, "extend", {"duration": "30d"})
    pinned = await system.act(life.id, "pin")

    async def is_shown() -> bool:
        shown = await system.shown(life.id)
        return shown["is_pinned"] is True and shown["expires_at"] is None

    await eventually(is_shown)
    assert isinstance(before, float)
    assert extended.json()["expires_at"] == pytest.approx(before + DAY_S / 2)
    assert (too_far.status_code, too_far.json()["code"]) == (422, "too_long")
    assert pinned.json()["is_pinned"] is True


async def test_stopped_preview_comes_back_when_it_is_redeployed(system: System) -> None:
    sha = system.world.forge.push(302)
    await system.world.webhook(302, "opened")
    first = await system.world.until(302, READY)

    nothing_failed = await system.act(first.id, "retry")
    stopped = await system.act(first.id, "stop")
    await system.world.until(302, TERMINATED)
    started = await system.act(first.id, "redeploy")
    second = await system.world.until(302, READY, sha)

    assert (nothing_failed.status_code, nothing_failed.json()["code"]) == (409, "nothing_failed")
    assert stopped.status_code == 200
    assert (started.status_code, started.json()["outcome"]) == (202, "started")
    assert second.id != first.id


async def test_the_command_line_speaks_to_the_api_in_its_own_words(system: System) -> None:
    system.world.forge.push(305)
    await system.world.webhook(305, "opened")
    await system.world.until(305, READY)

    def by_hand() -> tuple[str, bool, str]:
        with ApiClient(str(system.web.base_url), "token") as client:
            [environment] = client.environments(pr=305)
            pinned = ask(client, environment, action("pin"))
            with pytest.raises(NotAcceptable) as refusal:
                ask(client, environment, action("extend", duration="12 hours"))
            return pinned.outcome, pinned.is_pinned, str(refusal.value)

    assert await asyncio.to_thread(by_hand) == (
        "done",
        True,
        "pull request 305 of local/app: duration: must be a number with a unit, such as 90s, 5m, 24h or 2d.",
    )


async def test_redeploy_of_a_closed_pull_request_starts_nothing(system: System) -> None:
    system.world.forge.push(303)
    await system.world.webhook(303, "opened")
    first = await system.world.until(303, READY)
    system.world.forge.close(303)
    await system.world.webhook(303, "closed")
    await system.world.handle(303).result()

    started = await system.act(first.id, "redeploy")

    last = await system.world.newest(303)
    assert started.status_code == 202
    assert await system.world.handle(303).result() == "terminated"
    assert last is not None
    assert last.id == first.id


async def test_outsiders_commit_runs_once_it_was_approved_by_its_name(system: System) -> None:
    forge = system.world.forge
    sha = forge.push(304)
    forge.pulls[304] = replace(forge.pulls[304], head_repo_full_name="eve/app")
    await system.world.webhook(304, "opened")
    life = await system.world.until(304, EnvironmentState.AWAITING_APPROVAL)

    redeployed = await system.act(life.id, "redeploy")
    other = await system.act(life.id, "approve", {"sha": "0" * 40})
    approved = await system.act(life.id, "approve", {"sha": sha})
    ready = await system.world.until(304, READY, sha)

    assert (redeployed.status_code, redeployed.json()["code"]) == (409, "awaiting_approval")
    assert (other.status_code, other.json()["code"]) == (409, "head_moved")
    assert approved.status_code == 200
    assert ready.id == life.id
