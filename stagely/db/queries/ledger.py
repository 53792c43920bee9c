"""The VM ledger: rows are written before a cloud is asked and closed when the cloud's list proves the VM gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.models import utc_now
from stagely.db.queries.timeline import NewStep, put_steps
from stagely.db.tables import agent_commands, environments, steps, vms
from stagely.errors import Unavailable
from stagely.states import RunState, VmRole, VmState


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """What a new row says. `command`: the agent's first, or None."""

    vm_id: str
    project_id: str
    environment_id: str
    run_id: str
    build_id: str
    job: str
    role: str
    provider: str
    region: str
    size: str
    arch: str
    owner_workflow_id: str
    expires_in_s: float
    command: NewCommand | None = None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    vm_id: str
    provider: str
    environment_id: str
    role: str
    state: VmState
    address: str
    created_at: datetime
    expires_at: datetime


ROW_WAIT_S = 1.0  # A lease writes its row within milliseconds of a free worker.


@dataclass(frozen=True, slots=True)
class NewCommand:
    """A row of the outbox to agents. `body` is a CommandOrder as JSON."""

    id: str
    vm_id: str
    environment_id: str
    run_id: str
    kind: str
    body: Mapping[str, Any]  # Any: JSON.


async def open_row(engine: AsyncEngine, order: LedgerOrder) -> LedgerRow:
    """Write the row and the first command in one transaction; a second call gives back the row that is there."""
    now = utc_now()
    async with engine.begin() as db:
        team = select(environments.c.team_id).where(environments.c.id == order.environment_id).scalar_subquery()
        await db.execute(
            insert(vms)
            .values(
                id=order.vm_id, team_id=team, project_id=order.project_id, environment_id=order.environment_id,
                run_id=order.run_id, build_id=order.build_id, job=order.job, role=order.role, provider=order.provider,
                region=order.region, size=order.size, arch=order.arch, owner_workflow_id=order.owner_workflow_id,
                native_id="", address="", public_key="", session_sha256="", previous_session_sha256="", boot_id="",
                state=VmState.CREATING, created_at=now, expires_at=now + timedelta(seconds=order.expires_in_s),
            )
            .on_conflict_do_nothing()
        )  # fmt: skip
        if order.command is not None:
            await put_command(db, order.command)
        row = (await db.execute(_rows().where(vms.c.id == order.vm_id))).one()
        # The gateway ends this step with the agent's first contact.
        boot = NewStep("vm_boot", order.job or order.role, RunState.RUNNING, row.created_at.timestamp())
        if row.state == VmState.CREATING:
            await put_steps(db, order.environment_id, order.run_id, [boot])
    return _row(row)


async def put_command(db: AsyncConnection, command: NewCommand) -> None:
    """Write a command down for its VM, in the caller's transaction. The same id again changes nothing.

    Raises Unavailable while the VM has no row yet: its lease is about to write it, or has been refused.
    """
    if (await db.execute(select(vms.c.id).where(vms.c.id == command.vm_id))).one_or_none() is None:
        raise Unavailable(f"VM {command.vm_id} is not in the ledger yet", retry_after_s=ROW_WAIT_S)
    team = select(environments.c.team_id).where(environments.c.id == command.environment_id).scalar_subquery()
    await db.execute(
        insert(agent_commands)
        .values(
            id=command.id, team_id=team, vm_id=command.vm_id, environment_id=command.environment_id,
            run_id=command.run_id, kind=command.kind, body=dict(command.body), created_at=utc_now(),
        )
        .on_conflict_do_nothing()
    )  # fmt: skip


async def renew(db: AsyncConnection, vm_id: str, expires_at: datetime) -> None:
    """Move a VM's dead-man deadline to a later time, in the caller's transaction; never to an earlier one."""
    later = (vms.c.id == vm_id) & (vms.c.expires_at < expires_at)
    await db.execute(update(vms).where(later).values(expires_at=expires_at))


async def note_waiting(engine: AsyncEngine, vm_id: str, detail: str) -> None:
    """Show in the timeline why the VM is not there yet."""
    row = select(vms.c.environment_id, vms.c.run_id, vms.c.job, vms.c.role).where(vms.c.id == vm_id)
    async with engine.begin() as db:
        found = (await db.execute(row)).one()
        where = (
            (steps.c.environment_id == found.environment_id) & (steps.c.run_id == found.run_id)
            & (steps.c.name == "vm_boot") & (steps.c.subject == (found.job or found.role))
        )  # fmt: skip
        await db.execute(update(steps).where(where, steps.c.ended_at.is_(None)).values(detail=detail))


async def find_row(engine: AsyncEngine, vm_id: str) -> LedgerRow | None:
    async with engine.connect() as db:
        row = (await db.execute(_rows().where(vms.c.id == vm_id))).one_or_none()
    return None if row is None else _row(row)


async def living_rows(engine: AsyncEngine, environment_id: str) -> Sequence[LedgerRow]:
    """All rows of an environment whose VM is not proven gone."""
    async with engine.connect() as db:
        query = _rows().where(vms.c.environment_id == environment_id, vms.c.state != VmState.GONE)
        return [_row(row) for row in (await db.execute(query)).all()]


async def note_running(engine: AsyncEngine, vm_id: str, native_id: str, address: str) -> bool:
    """The cloud made it: its native id and address. False: the row is being destroyed, and keeps its state."""
    async with engine.begin() as db:
        changed = await db.execute(
            update(vms)
            .where(vms.c.id == vm_id, vms.c.state.in_([VmState.CREATING, VmState.RUNNING]))
            .values(
                state=VmState.RUNNING,
                native_id=native_id,
                address=address,
                running_at=func.coalesce(vms.c.running_at, utc_now()),
            )
            .returning(vms.c.environment_id, vms.c.role)
        )
        row = changed.one_or_none()
        if row is not None and row.role == VmRole.PREVIEW:
            await db.execute(
                update(environments).where(environments.c.id == row.environment_id).values(vm_id=vm_id, vm_ip=address)
            )
    return row is not None


async def note_destroying(engine: AsyncEngine, vm_id: str) -> None:
    async with engine.begin() as db:
        await db.execute(
            update(vms).where(vms.c.id == vm_id, vms.c.state != VmState.GONE).values(state=VmState.DESTROYING)
        )


async def note_gone(engine: AsyncEngine, vm_id: str) -> None:
    """Close the row and its open commands: nobody will answer them."""
    now = utc_now()
    async with engine.begin() as db:
        await db.execute(update(vms).where(vms.c.id == vm_id).values(state=VmState.GONE, gone_at=now))
        await db.execute(
            update(agent_commands)
            .where(agent_commands.c.vm_id == vm_id, agent_commands.c.answered_at.is_(None))
            .values(answered_at=now)
        )


def _rows() -> Any:  # Any: a Select over columns has no short type.
    return select(
        vms.c.id,
        vms.c.provider,
        vms.c.environment_id,
        vms.c.role,
        vms.c.state,
        vms.c.address,
        vms.c.created_at,
        vms.c.expires_at,
    )


def _row(row: Any) -> LedgerRow:  # Any: as above.
    return LedgerRow(
        row.id, row.provider, row.environment_id, row.role, VmState(row.state), row.address, row.created_at,
        row.expires_at,
    )  # fmt: skip
