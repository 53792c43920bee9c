"""The driver's part: GitHub's webhooks, the agents on the VMs, and how far the environments are.

`Stagely` does what api and gateway do: signal-with-start per webhook, and a signal per result that a workflow waits
for, once. Both targets' agents answer at once and always with success.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from bench.lifecycle import bare
from bench.lifecycle.link import Link
from bench.lifecycle.place import PROJECT
from workflows.messages import (
    WORKFLOW_QUEUE,
    AgentEvent,
    AgentEventKind,
    EnvironmentInput,
    PullRequestEvent,
    ServiceReport,
    environment_workflow_id,
)

PARALLEL = 32  # Signals at once, as the gateway sends them.
LOOK_S = 0.05  # Agents' commands; the gateway is nudged, this looks.
_FORWARDED_KINDS = ("build", "deploy")  # Results of other commands are no workflow's business.


class Target(Protocol):
    """`pr` counts from 1."""

    async def webhook(self, pr: int, action: str) -> None: ...

    async def play_agents(self) -> None:
        """Answer commands until cancelled."""
        ...

    async def ready(self) -> int:
        """How many environments are ready."""
        ...

    def workflow_id(self, pr: int) -> str: ...

    async def left_over(self) -> list[str]:
        """What is still there after everything was closed, as sentences."""
        ...


@dataclass(slots=True)
class Bare:
    client: Client
    link: Link

    async def webhook(self, pr: int, action: str) -> None:
        await self.client.start_workflow(
            bare.BareEnvironment.run,
            pr,
            id=self.workflow_id(pr),
            task_queue=bare.WORKFLOWS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal="pull_request_event",
            start_signal_args=[action],
        )

    async def play_agents(self) -> None:
        gate = asyncio.Semaphore(PARALLEL)
        async with asyncio.TaskGroup() as group:
            while True:
                order = await self.link.orders.get()
                group.create_task(_one_of(gate, tell(self.client, order.owner, order.command_id)))

    async def ready(self) -> int:
        return len(self.link.ready)

    def workflow_id(self, pr: int) -> str:
        return f"env/{pr}"

    async def left_over(self) -> list[str]:
        return []


@dataclass(slots=True)
class Stagely:
    client: Client
    engine: AsyncEngine
    redis: Redis
    answered: int = 0
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))

    async def webhook(self, pr: int, action: str) -> None:
        await self.client.start_workflow(
            "EnvironmentWorkflow",
            EnvironmentInput(PROJECT, pr),
            id=self.workflow_id(pr),
            task_queue=WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal="pull_request_event",
            start_signal_args=[PullRequestEvent(secrets.token_hex(16), action, time.time())],
            priority=Priority(fairness_key=PROJECT),
            static_summary=f"pull request {pr}",
        )

    async def play_agents(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for owner, event in await self._results():
                    group.create_task(_one_of(self._gate, tell(self.client, owner, event)))
                await asyncio.sleep(LOOK_S)

    async def ready(self) -> int:
        return await self._count("environments WHERE status = 'ready'")

    def workflow_id(self, pr: int) -> str:
        return environment_workflow_id(PROJECT, pr)

    async def left_over(self) -> list[str]:
        found = {
            "rows of VMs that are not gone": await self._count("vms WHERE state <> 'gone'"),
            "environments that are not terminated": await self._count("environments WHERE status <> 'terminated'"),
            "routes": len(await self.redis.keys("route:*")),
        }
        return [f"{count} {what} are left" for what, count in found.items() if count] + await self._failures()

    async def _failures(self) -> list[str]:
        """What one environment that failed says of it."""
        async with self.engine.connect() as connection:
            said = (await connection.execute(_FAILURE)).scalars().all()
        return [f"one environment failed: {message}" for message in said]

    async def _results(self) -> list[tuple[str, AgentEvent]]:
        """Of every command that its VM's agent can have by now; each is given once."""
        async with self.engine.begin() as connection:
            await connection.execute(_HELLO)
            rows = (await connection.execute(_ANSWER)).all()
        self.answered += len(rows)
        return [(row.owner_workflow_id, _result(row.vm_id, row.id)) for row in rows if row.kind in _FORWARDED_KINDS]

    async def _count(self, what: str) -> int:
        async with self.engine.connect() as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM {what}"))).scalar_one())


async def tell(client: Client, owner: str, event: object) -> None:
    """Signal the owner of a VM what its agent reports. The owner has ended: nobody wants to know."""
    try:
        await client.get_workflow_handle(owner).signal("agent_event", event)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def _one_of(gate: asyncio.Semaphore, work: Coroutine[None, None, None]) -> None:
    async with gate:
        await work


def _result(vm_id: str, command_id: str) -> AgentEvent:
    return AgentEvent(
        vm_id=vm_id,
        boot_id="boot",
        seq=int.from_bytes(hashlib.sha256(command_id.encode()).digest()[:3], "big") + 1,
        kind=AgentEventKind.RESULT,
        command_id=command_id,
        outcome="succeeded",
        digest="sha256:" + hashlib.sha256(command_id.encode()).hexdigest(),
        services=tuple(ServiceReport(name, "running", "healthy") for name in ("web", "api", "store")),
        phases={"clone": 0.4, "build": 2.0, "push": 1.2, "pull": 0.6, "up": 2.0, "health": 0.3},
    )


_HELLO = text("""
UPDATE vms SET online_at = now(), last_seen_at = now(), boot_id = 'boot'
WHERE state = 'running' AND online_at IS NULL
""")

_ANSWER = text("""
UPDATE agent_commands c SET sent_at = now(), answered_at = now()
FROM vms v WHERE v.id = c.vm_id AND c.answered_at IS NULL AND v.state = 'running'
RETURNING c.id, c.kind, c.vm_id, v.owner_workflow_id
""")

_FAILURE = text("SELECT message FROM environments WHERE status = 'failed' LIMIT 1")
