"""What happened, written down: one activity per event of the lifecycle, read by the API, the CLI and the comment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.routes import Routes
from stagely.db.queries import comments, ledger, timeline
from stagely.db.queries.ledger import NewCommand
from stagely.db.queries.timeline import NewStep
from workflows.messages import CommandOrder
from workflows.orders import LifetimeRow, Record, Step

COMMANDS_CHANNEL = "agent-commands"
"""Redis channel that carries the vm_id of a VM with a new command; a nudge only, the row is the order."""


@dataclass(frozen=True, slots=True)
class RecordActivities:
    engine: AsyncEngine
    redis: Redis
    routes: Routes

    @activity.defn
    async def record(self, record: Record) -> None:
        """Write one event whole. The same record twice leaves the same routes and rows, and one comment.

        Routes come first: visitors are led to a preview before it is called ready, and away before it is taken down.

        Raises:
            Conflict: the route's VM is being destroyed; see Routes.apply.
        """
        if record.route is not None:
            await self.routes.apply(record.route)
        async with self.engine.begin() as db:
            await write(db, record)
        if record.command is not None:
            await nudge_agent(self.redis, record.command.vm_id)
        await nudge(self.redis, record.environment_id)


async def write(db: AsyncConnection, record: Record) -> None:
    """The record's rows, in the caller's transaction."""
    await timeline.set_environment(db, record.environment_id, _environment_values(record))
    if record.build_id and record.build_state:
        await timeline.set_job(db, record.build_id, record.build_state, record.build_vm_id, record.artifact)
    steps = [new_step(step) for step in record.steps]
    await timeline.put_steps(db, record.environment_id, record.run_id, steps)
    if record.run_id and record.run_state:
        await timeline.set_run(db, record.run_id, record.run_state)
    if record.lifetime is not None and record.lifetime.vm_id and record.lifetime.vm_expires_at:
        await ledger.renew(db, record.lifetime.vm_id, _time(record.lifetime.vm_expires_at))
    if record.command is not None:
        await ledger.put_command(db, new_command(record.command))
    if record.publishes:
        await comments.want(db, record.environment_id)


async def nudge(redis: Redis, environment_id: str) -> None:
    """Tell who watches that there is something new to read."""
    await _nudge(redis, f"environments:{environment_id}", "")


async def nudge_agent(redis: Redis, vm_id: str) -> None:
    """Tell the gateways that this VM's agent has a new command to get."""
    await _nudge(redis, COMMANDS_CHANNEL, vm_id)


def new_command(order: CommandOrder) -> NewCommand:
    return NewCommand(order.command_id, order.vm_id, order.environment_id, order.run_id, order.kind, asdict(order))


def new_step(step: Step) -> NewStep:
    return NewStep(step.name, step.subject, step.state, step.started_at, step.ended_at, step.detail)


async def _nudge(redis: Redis, channel: str, text: str) -> None:
    """Nobody is told while Redis is away: whoever listens also looks by itself every few seconds."""
    try:
        await redis.publish(channel, text)
    except RedisError:
        return


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
    if record.lifetime is not None:
        values |= _lifetime_values(record.lifetime)
    return values


def _lifetime_values(lifetime: LifetimeRow) -> dict[str, Any]:  # Any: column values.
    expires_at = None if lifetime.expires_at is None else _time(lifetime.expires_at)
    return {"expires_at": expires_at, "is_pinned": lifetime.is_pinned, "warning": lifetime.warning}


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
