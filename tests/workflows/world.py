"""The world around the workflows: real Temporal, Postgres and Redis; a cloud, GitHub and agents that are simulated."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
from pydantic import TypeAdapter
from redis.asyncio import Redis
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.agents import AgentActivities
from activities.failures import FailureInterceptor
from activities.github import GitHubActivities
from activities.images import ImageActivities
from activities.records import RecordActivities
from activities.routes import RouteActivities
from activities.source import SourceActivities
from activities.vms import VmActivities
from providers.base import PowerState, Vm, VmOrder
from providers.errors import CredentialsRejected
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.models import utc_now
from stagely.db.queries import lives
from stagely.db.tables import agent_commands, environments, projects, vms, workflow_runs
from stagely.errors import GitHubRefused, GitHubUnavailable, NotFound
from stagely.github import PullRequest
from stagely.registry import Registry
from stagely.states import EnvironmentState
from workflows.environment import EnvironmentWorkflow
from workflows.messages import (
    CLOUD_QUEUE,
    CORE_QUEUE,
    WORKFLOW_QUEUE,
    AgentEvent,
    AgentEventKind,
    CommandOrder,
    EnvironmentInput,
    FailureReport,
    PullRequestEvent,
    ServiceReport,
    Timings,
    environment_workflow_id,
)
from workflows.pipeline import PipelineWorkflow
from workflows.vm_lease import VmLeaseWorkflow

COMPOSE = """
services:
  web: {build: web, ports: ["80:80"]}
  api: {build: api}
  store: {image: redis:8}
"""
DEADLINE_S = 60.0
POLL_S = 0.05
ORDER = TypeAdapter(CommandOrder)


@dataclass(slots=True)
class Cloud:
    """An in-memory cloud that keeps every VM it ever made and a journal of calls."""

    name: str = "local"
    alive: dict[str, Vm] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    lose_next_answer: bool = False
    refuse_destroys: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Creates wait for it; open at first."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def create(self, order: VmOrder) -> Vm:
        self.journal.append(f"create {order.vm_id}")
        await self.gate.wait()
        if order.vm_id not in self.alive:
            address = f"10.0.0.{len(self.journal) % 250 + 1}"
            made = Vm(order.vm_id, f"n-{order.vm_id}", PowerState.RUNNING, address, time.time(), order.environment_id)
            self.alive[order.vm_id] = made
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise ConnectionError("the answer was lost after the VM was made")
        return self.alive[order.vm_id]

    async def find(self, vm_id: str) -> Vm | None:
        return self.alive.get(vm_id)

    async def destroy(self, vm_id: str) -> None:
        self.journal.append(f"destroy {vm_id}")
        if self.refuse_destroys > 0:
            self.refuse_destroys -= 1
            raise CredentialsRejected("the key was revoked")
        self.alive.pop(vm_id, None)

    async def list_owned(self) -> Sequence[Vm]:
        return list(self.alive.values())

    async def aclose(self) -> None:
        return


@dataclass(slots=True)
class Forge:
    """GitHub as far as workflows see it: pull requests, files at commits, comments and statuses, all kept."""

    pulls: dict[int, PullRequest] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)
    statuses: list[tuple[str, str]] = field(default_factory=list)
    refuses_reading: bool = False
    reads: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Reading a pull request waits for it; open at first."""
    comments_are_down: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def push(self, number: int, files: Mapping[str, str] | None = None) -> str:
        """Open the pull request, or move its head; gives the new commit."""
        sha = secrets.token_hex(20)
        self.files[sha] = dict(files or {"docker-compose.yml": COMPOSE})
        self.pulls[number] = PullRequest(
            number, "open", False, False, f"change {number}", sha, "feature", "0" * 40, "main", "local/app", "ann"
        )
        return sha

    def close(self, number: int) -> None:
        old = self.pulls[number]
        self.pulls[number] = PullRequest(
            number, "closed", False, False, old.title, old.head_sha, "feature", "0" * 40, "main", "local/app", "ann"
        )

    def reopen(self, number: int) -> None:
        old = self.pulls[number]
        self.pulls[number] = PullRequest(
            number, "open", False, False, old.title, old.head_sha, "feature", "0" * 40, "main", "local/app", "ann"
        )

    async def pull_request(self, repo: str, number: int) -> PullRequest:
        self.reads += 1
        await self.gate.wait()
        if self.refuses_reading:
            raise GitHubRefused("the App may not read this")
        return self.pulls[number]

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]:
        return {path: self.files[sha].get(path) for path in paths}

    async def create_comment(self, repo: str, pr: int, text: str) -> int:
        self.comments[len(self.comments) + 1] = text
        return len(self.comments)

    async def update_comment(self, repo: str, comment_id: int, text: str) -> None:
        if comment_id not in self.comments:
            raise NotFound(f"no comment {comment_id}")
        self.comments[comment_id] = text

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None:
        if self.comments_are_down:
            raise GitHubUnavailable("503")
        return next((number for number, text in self.comments.items() if marker in text), None)

    async def set_status(
        self, repo: str, sha: str, state: str, context: str, description: str, target_url: str
    ) -> None:
        self.statuses.append((sha, state))


@dataclass(slots=True)
class Agents:
    """Every VM's agent: comes online when its VM lives, and answers each command once, as `answer` says.

    `answer(order)` gives the outcome: None for success, a FailureReport, or "silent" for no answer at all.
    """

    client: Client
    engine: AsyncEngine
    cloud: Cloud
    answer: Callable[[CommandOrder], FailureReport | str | None] = lambda order: None
    seen: list[CommandOrder] = field(default_factory=list)
    online: set[str] = field(default_factory=set)
    stays_offline: Callable[[str], bool] = lambda vm_id: False
    before_deploy: Callable[[CommandOrder], Awaitable[None]] | None = None
    _held_back: list[tuple[str, CommandOrder]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            await self._step()
            await asyncio.sleep(POLL_S)

    async def _step(self) -> None:
        async with self.engine.connect() as db:
            machines = (
                await db.execute(select(vms.c.id, vms.c.owner_workflow_id).where(vms.c.state == "running"))
            ).all()
            rows = (await db.execute(select(agent_commands).order_by(agent_commands.c.created_at))).all()
        for machine in machines:
            if machine.id in self.online or machine.id not in self.cloud.alive or self.stays_offline(machine.id):
                continue
            self.online.add(machine.id)
            await self._tell(machine.owner_workflow_id, AgentEvent(machine.id, "boot", 0, AgentEventKind.ONLINE))
        owners = {machine.id: machine.owner_workflow_id for machine in machines}
        for row in rows:
            known = {order.command_id for order in self.seen}
            if row.vm_id in self.online and row.vm_id in owners and row.id not in known:
                order = ORDER.validate_python(row.body)
                self.seen.append(order)
                await self._execute(owners[row.vm_id], order)

    async def _execute(self, owner: str, order: CommandOrder) -> None:
        answer = self.answer(order)
        if answer == "silent":
            self._held_back.append((owner, order))
            return
        if order.deploy and self.before_deploy is not None:
            await self.before_deploy(order)
        failure = answer if isinstance(answer, FailureReport) else None
        event = AgentEvent(
            vm_id=order.vm_id,
            boot_id="boot",
            seq=len(self.seen),
            kind=AgentEventKind.RESULT,
            command_id=order.command_id,
            outcome="failed" if failure else "succeeded",
            digest="sha256:" + hashlib.sha256(order.command_id.encode()).hexdigest(),
            failure=failure,
            services=(ServiceReport("web", "running", "healthy"),),
            phases={"clone": 0.2, "build": 1.0, "push": 0.3} if order.build else {"pull": 0.5, "up": 1.0},
        )
        await self._tell(owner, event)
        await self._tell(owner, event)  # At least once: every report comes twice here.

    async def answer_held_back(self) -> None:
        """Answer now, as `answer` says now, what was met with silence."""
        held, self._held_back = self._held_back, []
        for owner, order in held:
            await self._execute(owner, order)

    async def _tell(self, owner: str, event: AgentEvent) -> None:
        try:
            await self.client.get_workflow_handle(owner).signal("agent_event", event)
        except RPCError:
            return  # The owner has ended; the gateway would shut the VM down.


@dataclass(slots=True)
class World:
    client: Client
    engine: AsyncEngine
    redis: Redis
    cloud: Cloud
    forge: Forge
    agents: Agents
    project_id: str
    timings: Timings

    async def webhook(self, pr: int, action: str = "synchronize", delivery: str = "") -> None:
        """What the api does with GitHub's webhook."""
        event = PullRequestEvent(delivery or secrets.token_hex(8), action, time.time())
        await self.client.start_workflow(
            EnvironmentWorkflow.run,
            EnvironmentInput(self.project_id, pr, self.timings),
            id=environment_workflow_id(self.project_id, pr),
            task_queue=WORKFLOW_QUEUE,
            start_signal="pull_request_event",
            start_signal_args=[event],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )

    def handle(self, pr: int) -> WorkflowHandle[EnvironmentWorkflow, str]:
        return self.client.get_workflow_handle_for(
            EnvironmentWorkflow.run, environment_workflow_id(self.project_id, pr)
        )

    async def until(self, pr: int, state: EnvironmentState, sha: str = "") -> lives.LifeRow:
        """Wait for the newest environment of the pull request to be in `state` (at commit `sha`)."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                life = await self.newest(pr)
                if life is not None and life.state is state and (not sha or life.sha == sha):
                    return life
                await asyncio.sleep(POLL_S)

    async def newest(self, pr: int) -> lives.LifeRow | None:
        query = (
            select(environments.c.id).where(environments.c.pr_number == pr).order_by(environments.c.created_at.desc())
        )
        async with self.engine.connect() as db:
            found = (await db.execute(query)).scalars().first()
        return None if found is None else await lives.life(self.engine, found)

    async def run_states(self) -> list[str]:
        """Of all pushes, in their order."""
        query = select(workflow_runs.c.status).order_by(workflow_runs.c.created_at)
        async with self.engine.connect() as db:
            return list((await db.execute(query)).scalars())

    async def vm_states(self) -> list[str]:
        async with self.engine.connect() as db:
            return list((await db.execute(select(vms.c.state))).scalars())

    async def until_true(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110  # Agents, cloud and forge are plain state without events.
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def world(client: Client, engine: AsyncEngine, redis: Redis, timings: Timings) -> AsyncIterator[World]:
    """Everything running, with one project `local/app`."""
    await ensure_local_team(engine, "token")
    async with engine.begin() as db:
        await db.execute(
            insert(projects).values(
                id="prj-test", team_id=LOCAL_TEAM, slug="app", repo_url="http://forge/local/app.git",
                repo_full_name="local/app", installation_id=1, provider="local", created_at=utc_now(),
            )
        )  # fmt: skip
    cloud, forge = Cloud(), Forge()
    agents = Agents(client, engine, cloud)
    made = World(client, engine, redis, cloud, forge, agents, "prj-test", timings)
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            httpx.AsyncClient(base_url="http://registry", transport=httpx.MockTransport(_no_images))
        )
        for worker in workers(made, Registry(registry)):
            await stack.enter_async_context(worker)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(agents.run())
        stack.callback(task.cancel)
        yield made
        await _end_all(made)


def workers(made: World, registry: Registry) -> list[Worker]:
    engine, redis = made.engine, made.redis
    records, agents = RecordActivities(engine, redis), AgentActivities(engine, redis)
    routes, images = RouteActivities(engine, redis, "http://ui/{environment}"), ImageActivities(engine, registry)
    source = SourceActivities(engine, made.forge, "http://{label}.localhost:8080", "registry:5000")
    comments = GitHubActivities(engine, made.forge, "http://ui/{environment}")
    cloud = VmActivities(engine, lambda name: made.cloud, lambda order, at: f"user-data of {order.vm_id}", "test")
    core: list[Callable[..., object]] = [source.resolve_pull_request, source.plan, records.record, agents.order]
    core += [routes.show, routes.withdraw]
    intercept = [FailureInterceptor()]
    flows = [EnvironmentWorkflow, PipelineWorkflow, VmLeaseWorkflow]
    return [
        Worker(made.client, task_queue=WORKFLOW_QUEUE, workflows=flows),
        Worker(
            made.client,
            task_queue=CORE_QUEUE,
            activities=[*core, images.merge, images.delete_images, comments.publish],
            interceptors=intercept,
        ),
        Worker(
            made.client,
            task_queue=CLOUD_QUEUE,
            activities=[cloud.create_vm, cloud.destroy_vm, cloud.destroy_all],
            interceptors=intercept,
        ),
    ]


def _no_images(request: httpx.Request) -> httpx.Response:
    return httpx.Response(404)


async def _end_all(made: World) -> None:
    async for found in made.client.list_workflows("ExecutionStatus='Running'"):
        try:
            await made.client.get_workflow_handle(found.id).terminate("end of the test")
        except RPCError:
            continue  # It ended by itself meanwhile.
