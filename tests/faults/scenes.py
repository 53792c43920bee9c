"""Whole lives of an environment, and what must be true during and after each of them, whoever died meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import select

from edge.routes import RouteStatus, decode, key_of
from stagely.db.tables import build_slots, environments, vms
from stagely.states import EnvironmentState
from tests.faults.lane import Lane
from workflows.messages import ExtendRequest, RedeployRequest, environment_workflow_id, lease_workflow_id

READY, TERMINATED = EnvironmentState.READY, EnvironmentState.TERMINATED
TWO_ARCHITECTURES = {
    "docker-compose.yml": 'services:\n  web: {build: web, ports: ["80:80"]}\n  api: {build: api}\n',
    "stagely.yaml": "version: 1\nbuilds:\n  web: {context: web, arch: [amd64, arm64]}\n  api: {context: api}\n",
}
Scene = Callable[[Lane, int], Awaitable[None]]


async def life(lane: Lane, pr: int) -> None:
    """Opened with three builds and a merge, pushed to, extended, closed."""
    here = lane.world
    first = here.forge.push(pr, TWO_ARCHITECTURES)
    await here.webhook(pr, "opened")
    await here.until(pr, READY, first)
    await check_ready(lane, pr)
    second = here.forge.push(pr, TWO_ARCHITECTURES)
    await here.webhook(pr)
    await here.until(pr, READY, second)
    await here.handle(pr).execute_update("extend", ExtendRequest(3600.0, "ann"))
    await check_ready(lane, pr)
    await close(lane, pr)


async def queue(lane: Lane, pr: int) -> None:
    """With one build slot: opened, deployed again, its workflow terminated and found by the next event, closed."""
    here = lane.world
    sha = here.forge.push(pr)
    await here.webhook(pr, "opened")
    await here.until(pr, READY, sha)
    await here.handle(pr).execute_update("redeploy", RedeployRequest("ann"))
    await here.until_runs_of(pr, ["completed", "completed"])
    await check_ready(lane, pr)
    await here.handle(pr).terminate("an operator's mistake")
    await here.webhook(pr, "labeled")
    await here.until_runs_of(pr, ["completed", "completed", "completed"])
    await check_ready(lane, pr)
    await close(lane, pr)


async def close(lane: Lane, pr: int) -> None:
    here = lane.world
    here.forge.close(pr)
    await here.webhook(pr, "closed")
    await here.until(pr, TERMINATED)
    await check_gone(lane, pr)


async def check_ready(lane: Lane, pr: int) -> None:
    """One VM, the route to it, and one comment that says so."""
    here = lane.world
    life = await here.until(pr, READY)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    (preview,) = here.cloud.alive.values()
    route = decode(await here.redis.get(key_of(life.hash)) or b"")
    assert (route.status, route.ip, route.pr) == (RouteStatus.READY, preview.address, pr)
    await here.until_true(lambda: any("Preview ready" in text for text in here.forge.comments.values()))
    assert len(here.forge.comments) == 1


async def check_gone(lane: Lane, pr: int) -> None:
    """No VM, no route, no slot, no open workflow, one comment that says so."""
    here = lane.world
    await here.until_true(lambda: here.cloud.alive == {})
    assert await here.redis.keys("route:*") == []
    async with here.engine.connect() as db:
        of_pr = select(environments.c.id).where(environments.c.pr_number == pr)
        machines = (await db.execute(select(vms.c.id, vms.c.state).where(vms.c.environment_id.in_(of_pr)))).all()
        slots = (await db.execute(select(build_slots.c.build_id))).all()
    assert {machine.state for machine in machines} <= {"gone"}
    assert slots == []
    await here.until_true(lambda: any("Preview gone" in text for text in here.forge.comments.values()))
    assert len(here.forge.comments) == 1
    workflows = [environment_workflow_id(here.project_id, pr), *(lease_workflow_id(one.id) for one in machines)]
    for workflow_id in workflows:
        await here.until_closed(workflow_id)
