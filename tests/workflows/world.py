"""The world around the workflows: real Temporal, Postgres and Redis; a cloud, GitHub and agents that are simulated."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from pydantic import TypeAdapter
from redis.asyncio import Redis
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.comments import CommentPublisher
from activities.failures import FailureInterceptor
from activities.wiring import Adapters, cloud_activities, core_activities, sweep_activities
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
from workflows.deployment import WORKFLOWS, runner
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
    refuse_create: Callable[[VmOrder], None] | None = None
    """Raises what the cloud answers to an order."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Creates wait for it; open at first."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def create(self, order: VmOrder) -> Vm:
        """Once asked, the cloud goes on, also when the caller hangs up."""
        self.journal.append(f"create {order.vm_id}")
        return await asyncio.shield(self._make(order))

    async def _make(self, order: VmOrder) -> Vm:
        await self.gate.wait()
        if self.refuse_create is not None:
            self.refuse_create(order)
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
    refuses_files: bool = False
    is_away: bool = False
    """Reading a pull request answers 503."""
    reads: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Reading a pull request waits for it; open at first."""
    comments_are_down: bool = False
    breaks_comments: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def push(self, number: int, files: Mapping[str, str] | None = None, *, is_foreign: bool = False) -> str:
        """Open the pull request, or move its head; gives the new commit."""
        sha = secrets.token_hex(20)
        self.files[sha] = dict(files or {"docker-compose.yml": COMPOSE})
        self.pulls[number] = PullRequest(
            number, "open", False, False, f"change {number}", sha, "feature", "0" * 40, "main",
            "eve/app" if is_foreign else "local/app", "ann",
        )  # fmt: skip
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
        if self.is_away:
            raise GitHubUnavailable("503")
        if self.refuses_reading:
            raise GitHubRefused("the App may not read this")
        return self.pulls[number]

    async def open_pull_requests(self, repo: str) -> frozenset[int]:
        return frozenset(number for number, pull in self.pulls.items() if pull.state == "open")

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]:
        if self.refuses_files:
            raise GitHubRefused("the App may not read this repository's files")
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
        if self.breaks_comments > 0:
            self.breaks_comments -= 1
            raise RuntimeError("a bug of ours")
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
    boot_timeout_s: float = 300.0
    _offline_since: dict[str, float] = field(default_factory=dict)
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
            if machine.id in self.cloud.alive and machine.id not in self.online:
                await self._boot(machine.id, machine.owner_workflow_id)
        owners = {machine.id: machine.owner_workflow_id for machine in machines}
        for row in rows:
            known = {order.command_id for order in self.seen}
            if row.vm_id in self.online and row.vm_id in owners and row.id not in known:
                order = ORDER.validate_python(row.body)
                self.seen.append(order)
                await self._execute(owners[row.vm_id], order)

    async def _boot(self, vm_id: str, owner: str) -> None:
        """Come online; or be given up by the gateway when the boot takes too long."""
        if not self.stays_offline(vm_id):
            self.online.add(vm_id)
        elif time.monotonic() - self._offline_since.setdefault(vm_id, time.monotonic()) > self.boot_timeout_s:
            text = f"VM {vm_id} was given up: its agent's first contact did not come"
            report = FailureReport("vm_boot", text, code="boot_timeout")
            await self._tell(owner, AgentEvent(vm_id, "", 0, AgentEventKind.LOST, failure=report))

    async def _execute(self, owner: str, order: CommandOrder) -> None:
        answer = self.answer(order)
        if answer == "silent":
            self._held_back.append((owner, order))
            return
        if order.kind in ("prepare", "stop"):
            return  # Their results close their commands; the gateway does not bother workflows with them.
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
    build_slots: int = 50
    alternatives: Sequence[tuple[str, str]] = ()
    history_limit: int = 2000

    async def webhook(self, pr: int, action: str = "synchronize", delivery: str = "") -> None:
        """What the api does with GitHub's webhook."""
        event = PullRequestEvent(delivery or secrets.token_hex(8), action, time.time())
        await self.client.start_workflow(
            EnvironmentWorkflow.run,
            EnvironmentInput(self.project_id, pr, self.timings, self.history_limit),
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

    async def until_life(self, pr: int, condition: Callable[[lives.LifeRow], bool]) -> lives.LifeRow:
        """Wait for the newest environment's row to be so."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                life = await self.newest(pr)
                if life is not None and condition(life):
                    return life
                await asyncio.sleep(POLL_S)

    async def until_comment(self, text: str) -> None:
        """Wait for the pull request's only comment to say so: comments follow by an outbox."""
        await self.until_true(lambda: any(text in comment for comment in self.forge.comments.values()))
        assert len(self.forge.comments) == 1

    async def until_route_is_gone(self, pr: int) -> None:
        """Wait for visitors to find nothing."""
        life = await self.newest(pr)
        assert life is not None
        async with asyncio.timeout(DEADLINE_S):
            while await self.redis.exists(f"route:{life.hash}"):  # noqa: ASYNC110  # Redis tells nobody.
                await asyncio.sleep(POLL_S)

    async def until_vm(self, condition: Callable[[Any], bool]) -> None:  # Any: a row of the ledger.
        """Wait for some VM's row to be so."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                async with self.engine.connect() as db:
                    if any(condition(row) for row in await db.execute(select(vms))):
                        return
                await asyncio.sleep(POLL_S)

    async def until_runs(self, states: Sequence[str]) -> None:
        """Wait for all pushes, in their order, to be in these states."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.run_states() != list(states):  # noqa: ASYNC110  # As above.
                await asyncio.sleep(POLL_S)

    async def until_runs_of(self, pr: int, states: Sequence[str]) -> None:
        """The same of one pull request."""
        query = (
            select(workflow_runs.c.status)
            .join(environments, environments.c.id == workflow_runs.c.environment_id)
            .where(environments.c.pr_number == pr)
            .order_by(workflow_runs.c.created_at)
        )
        async with asyncio.timeout(DEADLINE_S):
            while True:
                async with self.engine.connect() as db:
                    if list((await db.execute(query)).scalars()) == list(states):
                        return
                await asyncio.sleep(POLL_S)

    async def until_closed(self, workflow_id: str) -> None:
        """Wait for a workflow to have ended."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.client.get_workflow_handle(workflow_id).describe()).close_time is None:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def until_run_changes(self, pr: int, run_id: str) -> None:
        """Wait for the environment to have continued as new."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.handle(pr).describe()).run_id == run_id:  # noqa: ASYNC110  # As above.
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
async def world(
    client: Client, engine: AsyncEngine, redis: Redis, timings: Timings, **more: Any
) -> AsyncIterator[World]:  # Any: World's own further fields.
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
    agents.boot_timeout_s = timings.boot_timeout_s
    made = World(client, engine, redis, cloud, forge, agents, "prj-test", timings, **more)
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            httpx.AsyncClient(base_url="http://registry", transport=httpx.MockTransport(_no_images))
        )
        for worker in workers(made, Registry(registry)):
            await stack.enter_async_context(worker)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        publisher = CommentPublisher(engine, forge, "http://ui/{environment}", poll_s=POLL_S)
        for task in (group.create_task(agents.run()), group.create_task(publisher.run())):
            stack.callback(task.cancel)
        yield made
        await _end_all(made)


def adapters(made: World, registry: Registry) -> Adapters:
    """The real activities' way to the simulated world."""
    return Adapters(
        engine=made.engine,
        redis=made.redis,
        github=made.forge,
        registry=registry,
        provider_of=lambda name: made.cloud,
        user_data=lambda order, at: f"user-data of {order.vm_id}",
        installation="test",
        registry_address="registry:5000",
        preview_url="http://{label}.localhost:8080",
        log_url="http://ui/{environment}",
        build_slots=made.build_slots,
        slot_ask_again_s=0.2,
        alternatives=lambda provider, region, size, arch: made.alternatives,
    )


def workers(made: World, registry: Registry) -> list[Worker]:
    wired = adapters(made, registry)
    intercept = [FailureInterceptor()]
    core = core_activities(wired) + sweep_activities(wired, made.client, made.timings)
    return [
        Worker(
            made.client,
            task_queue=WORKFLOW_QUEUE,
            workflows=WORKFLOWS,
            workflow_runner=runner(),
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        ),
        Worker(made.client, task_queue=CORE_QUEUE, activities=core, interceptors=intercept),
        Worker(made.client, task_queue=CLOUD_QUEUE, activities=cloud_activities(wired), interceptors=intercept),
    ]


def _no_images(request: httpx.Request) -> httpx.Response:
    return httpx.Response(404)


async def _end_all(made: World) -> None:
    async for found in made.client.list_workflows("ExecutionStatus='Running'"):
        try:
            await made.client.get_workflow_handle(found.id).terminate("end of the test")
        except RPCError:
            continue  # It ended by itself meanwhile.
