"""Rows that the workflows would have written, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import AgentState
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.models import utc_now
from stagely.db.tables import (
    agent_commands,
    agent_events,
    build_jobs,
    environments,
    log_chunks,
    projects,
    steps,
    vms,
    webhook_deliveries,
    workflow_runs,
)
from stagely.packing import unpack
from stagely.plan import BuildTarget, Expose
from workflows.messages import BuildOrder, BuiltImage, CommandOrder, DeployOrder

API_TOKEN = "a-token-of-the-test"
SHA = "a" * 40
HASH = "h" * 21
IDLE = AgentState.IDLE


@dataclass(frozen=True, slots=True)
class Ledger:
    """Writes and reads with the test's own hands."""

    engine: AsyncEngine

    async def begin(self) -> None:
        """A team, a project and one environment of pull request 7."""
        await ensure_local_team(self.engine, API_TOKEN)
        await self._insert(
            projects,
            id="prj-1", team_id=LOCAL_TEAM, slug="guestbook", repo_url="http://forge/local/guestbook.git",
            repo_full_name="local/guestbook", installation_id=0, provider="local", created_at=utc_now(),
        )  # fmt: skip
        await self.add_environment("env-1", 7)

    async def add_environment(self, environment_id: str, pr: int, **more: Any) -> None:  # Any: column values.
        values = {
            "id": environment_id, "team_id": LOCAL_TEAM, "project_id": "prj-1", "pr_number": pr, "title": "Add a page",
            "subdomain_hash": f"{environment_id}{HASH}"[:21], "status": "building", "message": "building", "sha": SHA,
            "run_id": "run-1", "vm_id": "", "vm_ip": "", "labels": [HASH],
            "services": [], "exposes": [{"service": "web", "port": 80, "label": "", "url": "http://x.localhost"}],
            "status_since": utc_now(), "created_at": utc_now(),
        }  # fmt: skip
        await self._insert(environments, **{**values, **more})

    async def add_vm(
        self, vm_id: str, owner: str = "run/run-1", role: str = "builder", state: str = "creating"
    ) -> None:
        await self._insert(
            vms,
            id=vm_id, team_id=LOCAL_TEAM, project_id="prj-1", environment_id="env-1", run_id="run-1", build_id="",
            job="", role=role, provider="local", region="", size="", arch="amd64", native_id="", address="",
            owner_workflow_id=owner, state=state, public_key="", session_sha256="", previous_session_sha256="",
            boot_id="", expires_at=utc_now(), created_at=utc_now(),
        )  # fmt: skip

    async def add_event(self, vm_id: str, seq: int, kind: str, body: object) -> None:
        """An event as another gateway left it a minute ago."""
        await self._insert(
            agent_events,
            vm_id=vm_id, boot_id="boot-1", seq=seq, team_id=LOCAL_TEAM, kind=kind, command_id="", body=body,
            received_at=utc_now() - timedelta(minutes=1),
        )  # fmt: skip

    async def add_delivery(self, delivery_id: str, project_id: str, pr: int, age_s: float) -> None:
        """A webhook that was stored and not dispatched."""
        await self._insert(
            webhook_deliveries,
            delivery_id=delivery_id, event="pull_request", action="opened", repo_full_name="local/guestbook",
            project_id=project_id, pr_number=pr, received_at=utc_now() - timedelta(seconds=age_s),
        )  # fmt: skip

    async def refuse_lines(self, line: str) -> None:
        """From now on Postgres refuses log chunks with this text."""
        async with self.engine.begin() as db:
            check = f"CHECK (position(convert_to('{line}', 'UTF8') IN data) = 0)"
            await db.execute(text(f"ALTER TABLE log_chunks ADD CONSTRAINT refused {check}"))

    @asynccontextmanager
    async def inbox_held(self) -> AsyncIterator[None]:
        """Nothing can be stored in the inbox meanwhile."""
        async with self._held("SELECT pg_advisory_xact_lock(4705001)"):
            yield

    @asynccontextmanager
    async def vms_held(self) -> AsyncIterator[None]:
        """Nobody can be let in meanwhile."""
        async with self._held("LOCK TABLE vms IN ACCESS EXCLUSIVE MODE"):
            yield

    @asynccontextmanager
    async def vm_held(self, vm_id: str) -> AsyncIterator[None]:
        """This VM's row can be read and not written meanwhile."""
        async with self._held("SELECT 1 FROM vms WHERE id = :id FOR UPDATE", id=vm_id):
            yield

    async def two_wait_for_a_row(self) -> bool:
        async with self.engine.connect() as db:
            query = (
                "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE NOT l.granted AND l.locktype IN ('tuple', 'transactionid') AND a.datname = current_database()"
            )
            return bool((await db.execute(text(query))).scalar_one() == 2)

    @asynccontextmanager
    async def commands_held(self) -> AsyncIterator[None]:
        """Commands can be read meanwhile and not changed."""
        async with self._held("LOCK TABLE agent_commands IN EXCLUSIVE MODE"):
            yield

    async def are_vms_waited_for(self) -> bool:
        async with self.engine.connect() as db:
            query = "SELECT count(*) FROM pg_locks WHERE relation = 'vms'::regclass AND NOT granted"
            return bool((await db.execute(text(query))).scalar_one())

    async def is_inbox_waited_for(self) -> bool:
        return bool(await self.waiting_for_the_inbox())

    async def waiting_for_the_inbox(self) -> int:
        """How many would store something now if they could."""
        async with self.engine.connect() as db:
            query = (
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                "WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()"
            )
            return int((await db.execute(text(query))).scalar_one())

    async def set_vm_state(self, vm_id: str, state: str) -> None:
        gone = ", gone_at = now()" if state == "gone" else ""
        async with self.engine.begin() as db:
            await db.execute(text(f"UPDATE vms SET state = :state{gone} WHERE id = :id"), {"id": vm_id, "state": state})

    async def vm(self, vm_id: str) -> Any:  # Any: a row.
        async with self.engine.connect() as db:
            return (await db.execute(select(vms).where(vms.c.id == vm_id))).one()

    async def environment(self, environment_id: str = "env-1") -> Any:  # Any: a row.
        async with self.engine.connect() as db:
            return (await db.execute(select(environments).where(environments.c.id == environment_id))).one()

    async def add_command(self, order: CommandOrder) -> None:
        await self._insert(
            agent_commands,
            id=order.command_id, team_id=LOCAL_TEAM, vm_id=order.vm_id, environment_id=order.environment_id,
            run_id=order.run_id, kind=order.kind, body=asdict(order), created_at=utc_now(),
        )  # fmt: skip

    async def sent_at(self, command_id: str) -> datetime | None:
        async with self.engine.connect() as db:
            found = await db.execute(select(agent_commands.c.sent_at).where(agent_commands.c.id == command_id))
            at: datetime | None = found.scalar_one()
            return at

    async def answered_at(self, command_id: str) -> datetime | None:
        async with self.engine.connect() as db:
            found = await db.execute(select(agent_commands.c.answered_at).where(agent_commands.c.id == command_id))
            at: datetime | None = found.scalar_one()
            return at

    async def chunks(self, vm_id: str) -> list[tuple[int, str, bytes]]:
        """(seq, stream, data) in the order of their ids."""
        async with self.engine.connect() as db:
            rows = await db.execute(select(log_chunks).where(log_chunks.c.vm_id == vm_id).order_by(log_chunks.c.id))
            return [(row.seq, row.stream, unpack(row.codec, row.data)) for row in rows]

    async def said(self, vm_id: str) -> list[tuple[str, str]]:
        """(stream, text) in the order of their ids; what follows in the same stream belongs to it."""
        by_stream = groupby(await self.chunks(vm_id), key=lambda chunk: chunk[1])
        return [(stream, b"".join(data for _, _, data in part).decode()) for stream, part in by_stream]

    async def events(self, vm_id: str) -> list[tuple[int, str]]:
        """(seq, kind) in order."""
        async with self.engine.connect() as db:
            rows = await db.execute(
                select(agent_events).where(agent_events.c.vm_id == vm_id).order_by(agent_events.c.seq)
            )
            return [(row.seq, row.kind) for row in rows]

    async def steps(self) -> list[tuple[str, str, str]]:
        """(name, subject, state) in the order in which they began."""
        async with self.engine.connect() as db:
            rows = await db.execute(select(steps).order_by(steps.c.started_at, steps.c.name))
            return [(row.name, row.subject, row.state) for row in rows]

    async def add_run(self) -> None:
        """Run run-1 of env-1: two clones of 1 and 3 seconds are over, one build goes on."""
        now = utc_now()
        common = {"environment_id": "env-1", "run_id": "run-1", "team_id": LOCAL_TEAM, "detail": ""}
        over = {**common, "name": "clone", "state": "completed"}
        await self._insert(
            workflow_runs,
            id="run-1", team_id=LOCAL_TEAM, environment_id="env-1", number=1, sha=SHA, status="running", created_at=now,
        )  # fmt: skip
        await self._insert(
            build_jobs,
            id="job-1", team_id=LOCAL_TEAM, workflow_run_id="run-1", name="api", arch="amd64", status="running",
            artifact_url="", vm_id="vm-1", created_at=now,
        )  # fmt: skip
        await self._insert(steps, **over, subject="api", started_at=now, ended_at=now + timedelta(seconds=1))
        began = now + timedelta(milliseconds=1)
        await self._insert(steps, **over, subject="web", started_at=began, ended_at=began + timedelta(seconds=3))
        began = now + timedelta(seconds=1)
        await self._insert(steps, **common, name="build", state="running", subject="api", started_at=began)

    async def add_chunk(self, seq: int, stream: str, data: str) -> None:
        await self._insert(
            log_chunks,
            vm_id="vm-1", boot_id="boot-1", seq=seq, environment_id="env-1", run_id="run-1", stream=stream,
            at=utc_now(), data=data.encode(),
        )  # fmt: skip

    async def dispatched_at(self, delivery_id: str) -> datetime | None:
        async with self.engine.connect() as db:
            column = webhook_deliveries.c.dispatched_at
            found = await db.execute(select(column).where(webhook_deliveries.c.delivery_id == delivery_id))
            at: datetime | None = found.scalar_one()
            return at

    @asynccontextmanager
    async def _held(self, lock: str, **parameters: str) -> AsyncIterator[None]:
        """Under this lock, for as long as a test needs: our own sessions may be idle in a transaction for 10 s."""
        async with self.engine.connect() as db, db.begin():
            await db.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            await db.execute(text(lock), parameters)
            yield

    async def _insert(self, table: Any, **values: Any) -> None:  # Any: a table and its column values.
        async with self.engine.begin() as db:
            await db.execute(insert(table).values(**values))


def build_order(vm_id: str, command_id: str = "run-1/b-1/1") -> CommandOrder:
    return CommandOrder(
        command_id=command_id,
        vm_id=vm_id,
        kind="build",
        environment_id="env-1",
        run_id="run-1",
        build=BuildOrder(
            repo="http://forge/local/guestbook.git",
            sha=SHA,
            target=BuildTarget("api", "api", "api", args={"COLOR": "blue"}),
            arch="amd64",
            push_to="registry:8003/prj-1/env-1/api",
            cache="registry:8003/prj-1/cache/api:amd64",
            timeout_s=60,
        ),
    )


def deploy_order(vm_id: str, command_id: str = "run-1/deploy") -> CommandOrder:
    return CommandOrder(
        command_id=command_id,
        vm_id=vm_id,
        kind="deploy",
        environment_id="env-1",
        run_id="run-1",
        deploy=DeployOrder(
            repo="http://forge/local/guestbook.git",
            sha=SHA,
            compose_files=("docker-compose.yml",),
            images=(BuiltImage("api", "api", "registry:8003/prj-1/env-1/api@sha256:" + "b" * 64),),
            expose=(Expose("web", 80),),
            urls=("http://x.localhost",),
            health_timeout_s=30,
        ),
    )
