"""What a sweep walks over: rows of any age and workflows that run or do not, made by the test's own hands."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis
from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from providers.base import Provider, VmOrder
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.models import utc_now
from stagely.db.tables import (
    agent_events,
    build_jobs,
    build_slots,
    environments,
    gateway_beats,
    projects,
    vms,
    webhook_deliveries,
    workflow_runs,
)
from stagely.errors import StagelyError
from stagely.ids import mint
from stagely.states import VmRole
from tests.fakes.cloud import FakeCloud, FakeCloudProvider
from workflows.messages import AgentEvent, PullRequestEvent, environment_workflow_id
from workflows.sweeps import Sweep, SweepInput

OURS, THEIRS = "ours", "theirs"
NOBODY = "nobody"  # A task queue without a worker: what is started there runs for ever.
HOUR_S = 3600.0
AT_ONCE = SweepInput(apart_s=0.0)
"""The real limits; only that two sweeps of a test may follow each other at once."""


class Cloud(FakeCloud):
    """FakeCloud's servers are years old; one may be made young."""

    def rejuvenate(self, vm_id: str, age_s: float) -> None:
        name = f"stg-{vm_id}"
        self._servers[name] = replace(self._servers[name], created_at=time.time() - age_s)


@dataclass(slots=True)
class Pulls:
    """GitHub's list of open pull requests, by repository. `fails` raises for the repositories it names."""

    open: dict[str, set[int]] = field(default_factory=dict)
    fails: dict[str, StagelyError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def open_pull_requests(self, repo: str) -> Collection[int]:
        self.asked.append(repo)
        if repo in self.fails:
            raise self.fails[repo]
        return self.open.get(repo, set())


@dataclass(frozen=True, slots=True)
class Yard:
    """Project `project_id` of local/app on the cloud "fake"; every id is new, for workflows outlive a test."""

    engine: AsyncEngine
    redis: Redis
    client: Client
    cloud: Cloud
    pulls: Pulls
    project_id: str = field(default_factory=lambda: mint("prj"))
    started: list[str] = field(default_factory=list)

    def provider(self, installation: str = OURS) -> Provider:
        return FakeCloudProvider(self.cloud, installation)

    async def begin(self) -> None:
        await ensure_local_team(self.engine, "token")
        await self.add_project(self.project_id, "local/app")

    async def add_project(self, project_id: str, repo: str, provider: str = "fake") -> None:
        await self.insert(
            projects,
            id=project_id, team_id=LOCAL_TEAM, slug=project_id, repo_url=f"http://forge/{repo}.git",
            repo_full_name=repo, installation_id=1, provider=provider, created_at=utc_now(),
        )  # fmt: skip

    async def environment(self, pr: int = 1, status: str = "ready", age_s: float = HOUR_S, project: str = "") -> str:
        environment_id = mint("env")
        await self.insert(
            environments,
            id=environment_id, team_id=LOCAL_TEAM, project_id=project or self.project_id, pr_number=pr, title="",
            subdomain_hash=environment_id, status=status, message="", sha="a" * 40, run_id="", vm_id="", vm_ip="",
            labels=[], services=[], exposes=[], status_since=ago(age_s), created_at=ago(age_s),
        )  # fmt: skip
        return environment_id

    async def row(self, environment_id: str, **more: Any) -> str:  # Any: column values.
        """A ledger row of a VM that has run for an hour, was heard just now and is good for another hour."""
        vm_id = str(more.pop("id", "")) or mint("vm")
        values = {
            "id": vm_id, "team_id": LOCAL_TEAM, "project_id": self.project_id, "environment_id": environment_id,
            "run_id": "", "build_id": "", "job": "", "role": "preview", "provider": "fake", "region": "", "size": "",
            "arch": "amd64", "native_id": "", "address": "", "owner_workflow_id": "", "state": "running",
            "public_key": "", "session_sha256": "",
            "previous_session_sha256": "", "boot_id": "boot", "expires_at": ago(-HOUR_S), "created_at": ago(HOUR_S),
            "running_at": ago(HOUR_S), "online_at": ago(HOUR_S), "last_seen_at": ago(5),
        }  # fmt: skip
        await self.insert(vms, **{**values, **more})
        return vm_id

    async def machine(self, vm_id: str = "", installation: str = OURS) -> str:
        """A VM in the cloud."""
        order = VmOrder(vm_id or mint("vm"), installation, self.project_id, "env", VmRole.PREVIEW, "#cloud-config\n")
        await self.provider(installation).create(order)
        return order.vm_id

    async def healthy(self, environment_id: str, **more: Any) -> str:  # Any: column values.
        """A VM as it should be: row, machine and lease."""
        vm_id = await self.machine()
        await self.row(environment_id, id=vm_id, **more)
        await self.run(f"vm/{vm_id}")
        return vm_id

    async def slot(self, environment_id: str, job: str = "running", run: str = "running", age_s: float = HOUR_S) -> str:
        """A granted slot of a build; its run's id is `run-` and the build's id."""
        build_id = mint("b")
        run_id = f"run-{build_id}"
        await self.insert(
            workflow_runs,
            id=run_id, team_id=LOCAL_TEAM, environment_id=environment_id, number=1, sha="a" * 40, status=run,
            created_at=ago(age_s),
        )  # fmt: skip
        await self.insert(
            build_jobs,
            id=build_id, team_id=LOCAL_TEAM, workflow_run_id=run_id, name="web", arch="amd64", status=job,
            artifact_url="", vm_id="", created_at=ago(age_s),
        )  # fmt: skip
        await self.insert(
            build_slots,
            build_id=build_id, team_id=LOCAL_TEAM, environment_id=environment_id, run_id=run_id,
            queued_at=ago(age_s), granted_at=ago(age_s),
        )  # fmt: skip
        return build_id

    async def slots(self) -> list[str]:
        async with self.engine.connect() as db:
            return list((await db.execute(select(build_slots.c.build_id).order_by(build_slots.c.number))).scalars())

    async def webhook(self, pr: int, age_s: float, project: str = "") -> str:
        delivery_id = mint("delivery")
        await self.insert(
            webhook_deliveries,
            delivery_id=delivery_id, event="pull_request", action="synchronize", repo_full_name="local/app",
            project_id=project or self.project_id, pr_number=pr, received_at=ago(age_s),
        )  # fmt: skip
        return delivery_id

    async def undispatched(self) -> list[str]:
        inbox = webhook_deliveries.c
        async with self.engine.connect() as db:
            found = await db.execute(select(inbox.delivery_id).where(inbox.dispatched_at.is_(None)))
            return list(found.scalars())

    async def agent_event(self, vm_id: str, age_s: float) -> None:
        await self.insert(
            agent_events,
            vm_id=vm_id, boot_id="boot", seq=1, team_id=LOCAL_TEAM, kind="result", command_id="", body={},
            received_at=ago(age_s),
        )  # fmt: skip

    async def gateway(self, up_s: float, beat_ago_s: float = 1.0) -> None:
        await self.insert(gateway_beats, instance=mint("gateway"), since=ago(up_s), beat_at=ago(beat_ago_s))

    async def state(self, vm_id: str) -> str:
        async with self.engine.connect() as db:
            return str((await db.execute(select(vms.c.state).where(vms.c.id == vm_id))).scalar_one())

    async def change(self, table: Table, row_id: str, **values: Any) -> None:  # Any: column values.
        async with self.engine.begin() as db:
            await db.execute(update(table).where(table.c.id == row_id).values(**values))

    async def insert(self, table: Table, **values: Any) -> None:  # Any: column values.
        async with self.engine.begin() as db:
            await db.execute(insert(table).values(**values))

    # --- workflows

    async def run(self, workflow_id: str) -> WorkflowHandle[object, object]:
        """A workflow of this id runs, and does nothing."""
        self.started.append(workflow_id)
        return await self.client.start_workflow("Anything", id=workflow_id, task_queue=NOBODY)

    async def follow(self, pr: int, project: str = "") -> WorkflowHandle[object, object]:
        """The environment's workflow runs."""
        return await self.run(environment_workflow_id(project or self.project_id, pr))

    async def end_all(self) -> None:
        for workflow_id in self.started:
            await self.end(workflow_id)

    async def end(self, workflow_id: str) -> None:
        try:
            await self.client.get_workflow_handle(workflow_id).terminate("end of the test")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def looks(self, pr: int, project: str = "") -> list[PullRequestEvent]:
        """What the environment's workflow was told, none when it never ran."""
        workflow_id = environment_workflow_id(project or self.project_id, pr)
        self.started.append(workflow_id)
        return [_LOOK.validate_python(one) for one in await self._signals(workflow_id, "pull_request_event")]

    async def agent_events(self, workflow_id: str) -> list[AgentEvent]:
        return [_EVENT.validate_python(one) for one in await self._signals(workflow_id, "agent_event")]

    async def releases(self, vm_id: str) -> int:
        """How often the VM's lease was told to release it."""
        return len(await self._signals(f"vm/{vm_id}", "release"))

    async def _signals(self, workflow_id: str, name: str) -> list[object]:
        found: list[object] = []
        try:
            async for event in self.client.get_workflow_handle(workflow_id).fetch_history_events():
                told = event.workflow_execution_signaled_event_attributes
                if told.signal_name == name:
                    found += await self.client.data_converter.decode(told.input.payloads) or [None]
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return found


def new_sweep(order: SweepInput = AT_ONCE, ceiling: int = 5) -> Sweep:
    """Another sweep, as its first activity describes it to the others."""
    return Sweep(mint("sweep"), order, ceiling, ("fake",))


def ago(seconds: float) -> datetime:
    return utc_now() - timedelta(seconds=seconds)


_LOOK = TypeAdapter(PullRequestEvent)
_EVENT = TypeAdapter(AgentEvent)
