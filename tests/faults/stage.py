"""A world for faults of other parts than the worker: many pull requests at once, parts that are away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.asyncio import Redis
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.comments import CommentPublisher
from edge.routes import RouteStatus, decode, key_of
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.models import utc_now
from stagely.db.tables import build_slots, environments, projects, vms, workflow_runs
from stagely.ids import mint
from stagely.registry import Registry
from stagely.states import EnvironmentState
from tests.workflows.world import POLL_S, Agents, Cloud, Forge, World, workers
from workflows.messages import (
    WORKFLOW_QUEUE,
    AgentEvent,
    Timings,
    environment_workflow_id,
    lease_workflow_id,
    pipeline_workflow_id,
)
from workflows.reaper import ReaperWorkflow
from workflows.sweeps import SweepInput, SweepReport

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED
TIMINGS = Timings(debounce_s=0.2, boot_timeout_s=20)
NO_BUILDS = {"docker-compose.yml": 'services:\n  web: {image: nginx, ports: ["80:80"]}\n'}
SETTLE_S = 30.0  # What has ended must be gone by then; the promise of a superseded push's builders.
AT_ONCE = SweepInput(min_age_s=0.0, apart_s=0.0)


@dataclass(slots=True)
class Github(Forge):
    """A forge whose comments belong to their pull requests."""

    pr_of: dict[int, int] = field(default_factory=dict)

    async def create_comment(self, repo: str, pr: int, text: str) -> int:
        number = await Forge.create_comment(self, repo, pr, text)
        self.pr_of[number] = pr
        return number

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None:
        return next((n for n, text in self.comments.items() if marker in text and self.pr_of[n] == pr), None)

    def comments_on(self, pr: int) -> list[str]:
        return [text for number, text in self.comments.items() if self.pr_of[number] == pr]


@dataclass(slots=True)
class PatientAgents(Agents):
    """Agents behind a gateway that keeps what it cannot deliver yet."""

    async def run(self) -> None:
        while True:
            try:
                await Agents.run(self)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(POLL_S)

    async def _tell(self, owner: str, event: AgentEvent) -> None:
        while True:
            try:
                await self.client.get_workflow_handle(owner).signal("agent_event", event)
                return
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return
                await asyncio.sleep(POLL_S)


@dataclass(slots=True)
class Stage:
    """`world` with everything running in this process, and what must be true of it."""

    world: World
    github: Github
    ended: set[str] = field(default_factory=set)
    """Leases and pipelines, of which each runs once, that were seen to have ended."""

    async def until_ready(self, pr: int, sha: str) -> None:
        """Wait for the preview of this commit to be up, with nothing beside it."""
        await self.world.until(pr, READY, sha)
        await self.settled(pr, is_open=True)

    async def until_gone(self, pr: int) -> None:
        """Wait for nothing to be left of the pull request."""
        await self.settled(pr, is_open=False)

    async def settled(self, pr: int, *, is_open: bool) -> None:
        """Raises AssertionError with everything that is not as it must be after SETTLE_S."""
        wrong = ["not looked yet"]
        try:
            async with asyncio.timeout(SETTLE_S):
                while wrong := await self._wrong(pr, is_open):  # noqa: ASYNC110  # It is servers that change.
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"pull request {pr}: {'; '.join(wrong)}") from None

    async def sweep(self) -> SweepReport:
        return await self.world.client.execute_workflow(
            ReaperWorkflow.run, AT_ONCE, id=mint("reaper"), task_queue=WORKFLOW_QUEUE
        )

    async def _wrong(self, pr: int, is_open: bool) -> list[str]:
        ids, states, machines, runs, slots = await self._rows(pr)
        alive = sorted(vm.vm_id for vm in self.world.cloud.alive.values() if vm.environment_id in ids)
        living = sorted(vm_id for vm_id, state in machines.items() if state != "gone")
        wrong = [f"build slots {slots}"] if slots else []
        if alive != living:
            wrong.append(f"alive {alive}, but in the ledger {living}")
        if len(alive) != int(is_open):
            wrong.append(f"{len(alive)} VMs are alive")
        wrong += await self._wrong_routes(pr, ids, is_open, alive)
        wrong += self._wrong_comments(pr, is_open, had_any=bool(ids))
        if is_open and states[-1:] != [READY]:
            wrong.append(f"its environments are {states}")
        if not is_open and set(states) - {TERMINATED}:
            wrong.append(f"its environments are {states}")
        return wrong or await self._wrong_runs(pr, machines, runs, is_open)

    async def _wrong_runs(self, pr: int, machines: Mapping[str, str], runs: Sequence[str], is_open: bool) -> list[str]:
        """Of a ready preview two workflows run, its own and its VM's lease; asked for last, for it takes many calls."""
        environment = environment_workflow_id(self.world.project_id, pr)
        leases = {lease_workflow_id(vm_id): state for vm_id, state in machines.items()}
        expected = {environment, *(lease for lease, state in leases.items() if state != "gone")} if is_open else set()
        known = [one for one in (environment, *leases, *map(pipeline_workflow_id, runs)) if one not in self.ended]
        running = {one for one in known if await self._runs(one)}
        self.ended |= {*known} - running - {environment}
        return [] if running == expected else [f"these workflows run: {sorted(running)}"]

    async def _rows(self, pr: int) -> tuple[list[str], list[str], dict[str, str], list[str], list[str]]:
        """Environments, oldest first, and their states; VMs' states; runs; builds with a slot or waiting for one."""
        c = environments.c
        async with self.world.engine.connect() as db:
            rows = (
                await db.execute(select(c.id, c.status).where(c.pr_number == pr).order_by(c.created_at, c.id))
            ).all()
            ids = [row.id for row in rows]
            machines = await db.execute(select(vms.c.id, vms.c.state).where(vms.c.environment_id.in_(ids)))
            states = {row.id: row.state for row in machines}
            of_runs = select(workflow_runs.c.id).where(workflow_runs.c.environment_id.in_(ids))
            runs = list((await db.execute(of_runs)).scalars())
            of_slots = select(build_slots.c.build_id).where(build_slots.c.environment_id.in_(ids))
            slots = list((await db.execute(of_slots)).scalars())
        return ids, [row.status for row in rows], states, runs, slots

    async def _wrong_routes(self, pr: int, ids: Sequence[str], is_open: bool, alive: Sequence[str]) -> list[str]:
        found = [await self.world.redis.get(key) for key in await self.world.redis.keys("route:*")]
        ours = [record for record in found if record is not None and decode(record).environment in ids]
        if not is_open:
            return [f"{len(ours)} routes are left"] if ours else []
        life = await self.world.newest(pr)
        main = await self.world.redis.get(key_of(life.hash)) if life else None
        if main is None or not alive:
            return ["there is no route"]
        route = decode(main)
        preview = self.world.cloud.alive.get(alive[0])
        is_right = preview is not None and (route.status, route.ip) == (RouteStatus.READY, preview.address)
        return [] if is_right else [f"its route says {route.status} at {route.ip}, its VM is {preview}"]

    def _wrong_comments(self, pr: int, is_open: bool, *, had_any: bool) -> list[str]:
        texts = self.github.comments_on(pr)
        wanted = "Preview ready" if is_open else "Preview gone"
        if len(texts) != int(had_any):
            return [f"{len(texts)} comments"]
        return [f"its comment says {text!r}" for text in texts if wanted not in text]

    async def _runs(self, workflow_id: str) -> bool:
        try:
            found = await self.world.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return found.status is WorkflowExecutionStatus.RUNNING


@asynccontextmanager
async def stage(
    client: Client, engine: AsyncEngine, redis: Redis, cloud: Cloud | None = None, **more: Any
) -> AsyncIterator[Stage]:  # Any: World's own further fields.
    """Everything running, with one project."""
    await ensure_local_team(engine, "token")
    project_id = mint("prj")
    async with engine.begin() as db:
        await db.execute(
            insert(projects).values(
                id=project_id, team_id=LOCAL_TEAM, slug="app", repo_url="http://forge/local/app.git",
                repo_full_name="local/app", installation_id=1, provider="local", created_at=utc_now(),
            )
        )  # fmt: skip
    github, cloud = Github(), cloud or Cloud()
    agents = PatientAgents(client, engine, cloud)
    agents.boot_timeout_s = TIMINGS.boot_timeout_s
    made = World(client, engine, redis, cloud, github, agents, project_id, **{"timings": TIMINGS, **more})
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            httpx.AsyncClient(base_url="http://registry", transport=httpx.MockTransport(lambda _: httpx.Response(404)))
        )
        for worker in workers(made, Registry(registry)):
            await stack.enter_async_context(worker)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        publisher = CommentPublisher(engine, github, "http://ui/{environment}", poll_s=POLL_S)
        for work in (agents.run(), publisher.run()):
            stack.callback(group.create_task(work).cancel)
        yield Stage(made, github)
        await _end_all(made)


async def _end_all(made: World) -> None:
    async for found in made.client.list_workflows("ExecutionStatus='Running'"):
        try:
            await made.client.get_workflow_handle(found.id).terminate("end of the test")
        except RPCError:
            continue  # It ended by itself meanwhile.
