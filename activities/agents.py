"""Orders to agents: rows that the gateway pushes until they are answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.db.models import utc_now
from stagely.db.tables import agent_commands, vms
from workflows.messages import CommandOrder

CHANNEL = "agent-commands"
"""Redis channel that carries the vm_id of a VM with a new command; a nudge only, the row is the order."""


@dataclass(frozen=True, slots=True)
class AgentActivities:
    engine: AsyncEngine
    redis: Redis

    @activity.defn
    async def order(self, command: CommandOrder) -> None:
        """Write the command down for its VM. The same command_id again changes nothing."""
        team = select(vms.c.team_id).where(vms.c.id == command.vm_id).scalar_subquery()
        async with self.engine.begin() as db:
            await db.execute(
                insert(agent_commands)
                .values(
                    id=command.command_id, team_id=team, vm_id=command.vm_id, environment_id=command.environment_id,
                    run_id=command.run_id, kind=command.kind, body=asdict(command), created_at=utc_now(),
                )
                .on_conflict_do_nothing()
            )  # fmt: skip
        try:
            await self.redis.publish(CHANNEL, command.vm_id)
        except RedisError:
            return  # The gateway also looks by itself every few seconds.
