"""What people watch: states and steps, written in one transaction per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stagely.db.models import utc_now
from stagely.db.queries import slots
from stagely.db.tables import build_jobs, environments, steps, workflow_runs
from stagely.states import GONE, EnvironmentState, RunState

_ENDED = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True, slots=True)
class NewStep:
    """Times are Unix seconds."""

    name: str
    subject: str
    state: str
    started_at: float
    ended_at: float | None = None
    detail: str = ""


async def set_environment(db: AsyncConnection, environment_id: str, values: dict[str, Any]) -> None:
    """Change columns of a living environment; `status` also moves `status_since`. One that is gone stays as it is."""
    if not values:
        return
    if "status" in values:
        values = {**values, "status_since": utc_now()}
        if EnvironmentState(values["status"]) in GONE:
            values["ended_at"] = utc_now()
    living = environments.c.status.not_in([str(state) for state in GONE])
    await db.execute(update(environments).where(environments.c.id == environment_id, living).values(**values))


async def set_run(db: AsyncConnection, run_id: str, state: RunState) -> None:
    """A run's state; one that has ended stays as it is."""
    ended = {"ended_at": utc_now()} if state in _ENDED else {}
    still = workflow_runs.c.status.not_in([str(s) for s in _ENDED])
    await db.execute(update(workflow_runs).where(workflow_runs.c.id == run_id, still).values(status=state, **ended))
    if state in _ENDED:
        await _end_open(db, run_id, state)


async def cancel_open_runs(db: AsyncConnection, environment_id: str, but: str = "") -> None:
    """The environment has ended, or begins another run (`but`): its runs are over, whatever became of them."""
    running = workflow_runs.c.status.not_in([str(s) for s in _ENDED])
    of_it = (workflow_runs.c.environment_id == environment_id) & (workflow_runs.c.id != but)
    query = select(workflow_runs.c.id).where(of_it, running)
    for run_id in (await db.execute(query)).scalars().all():
        await set_run(db, run_id, RunState.CANCELLED)


async def set_job(db: AsyncConnection, build_id: str, state: RunState, vm_id: str, artifact: str) -> None:
    """A job's state; one that ended gives its build slot back."""
    values: dict[str, Any] = {"status": state}
    if vm_id:
        values["vm_id"] = vm_id
    if artifact:
        values["artifact_url"] = artifact
    if state in _ENDED:
        values["ended_at"] = utc_now()
    await db.execute(update(build_jobs).where(build_jobs.c.id == build_id).values(**values))
    if state in _ENDED:
        await slots.free(db, build_id=build_id)


async def put_steps(db: AsyncConnection, environment_id: str, run_id: str, new: Sequence[NewStep]) -> None:
    """Write steps; one that is there is overwritten, so the VM's own measure replaces what was seen from outside."""
    team = select(environments.c.team_id).where(environments.c.id == environment_id).scalar_subquery()
    for step in new:
        values = {
            "state": step.state,
            "started_at": _time(step.started_at),
            "ended_at": None if step.ended_at is None else _time(step.ended_at),
            "detail": step.detail,
        }
        key = {"environment_id": environment_id, "run_id": run_id, "name": step.name, "subject": step.subject}
        statement = insert(steps).values(**key, team_id=team, **values)
        await db.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))


async def _end_open(db: AsyncConnection, run_id: str, state: RunState) -> None:
    """A run that ended leaves no step or job running behind, and no build slot taken."""
    await slots.free(db, run_id=run_id)
    now = utc_now()
    running = (steps.c.run_id == run_id) & steps.c.ended_at.is_(None)
    await db.execute(update(steps).where(running).values(ended_at=now, state=state))
    open_jobs = (build_jobs.c.workflow_run_id == run_id) & build_jobs.c.ended_at.is_(None)
    await db.execute(update(build_jobs).where(open_jobs).values(ended_at=now, status=RunState.CANCELLED))


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
