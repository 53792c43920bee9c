"""What happened, written down: one transaction per record, read by the API, the CLI and the comment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.db.queries import timeline
from stagely.db.queries.timeline import NewStep
from workflows.messages import Record, Step


@dataclass(frozen=True, slots=True)
class RecordActivities:
    engine: AsyncEngine
    redis: Redis

    @activity.defn
    async def record(self, record: Record) -> None:
        """Write states and steps. The same record twice leaves the same rows."""
        async with self.engine.begin() as db:
            await timeline.set_environment(db, record.environment_id, _environment_values(record))
            if record.build_id and record.build_state:
                await timeline.set_job(db, record.build_id, record.build_state, record.build_vm_id, record.artifact)
            steps = [new_step(step) for step in record.steps]
            await timeline.put_steps(db, record.environment_id, record.run_id, steps)
            if record.run_id and record.run_state:
                await timeline.set_run(db, record.run_id, record.run_state)
        await nudge(self.redis, record.environment_id)


async def nudge(redis: Redis, environment_id: str) -> None:
    """Tell who watches that there is something new to read. Nobody is told while Redis is away: watchers also poll."""
    try:
        await redis.publish(f"environments:{environment_id}", b"")
    except RedisError:
        return


def new_step(step: Step) -> NewStep:
    return NewStep(step.name, step.subject, step.state, step.started_at, step.ended_at, step.detail)


def _environment_values(record: Record) -> dict[str, Any]:  # Any: column values.
    values: dict[str, Any] = {}
    if record.state:
        values["status"] = record.state
    if record.message:
        values["message"] = record.message
    if record.vm_id:
        values["vm_id"] = record.vm_id
    if record.sha:
        values["sha"] = record.sha
    if record.services:
        values["services"] = [asdict(service) for service in record.services]
    if record.failure or record.clear_failure:
        values["failure"] = asdict(record.failure) if record.failure else None
    return values
