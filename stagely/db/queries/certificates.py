"""Which preview VMs need a certificate, and which have one. Times are the database's.

What was issued is a command of kind `certify`; what was delivered is such a command with a good result.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.tables import vms

KIND = "certify"


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM whose certificate is to be looked after. `public_key`: of its agent, 32 bytes in hex.

    issued_at, outcome: of its newest certificate; None before the first one, and "" while its agent has not answered.
    failures: how many of those of the last 8 hours its agent could not take.
    """

    vm_id: str
    environment_id: str
    public_key: str
    now: datetime
    issued_at: datetime | None
    outcome: str
    failures: int


async def due(db: AsyncConnection, at_most: int) -> list[Machine]:
    """Those that wait longest, each for this transaction alone; a VM without an agent waits for nothing."""
    rows = await db.execute(_DUE, {"at_most": at_most})
    return [
        Machine(row.id, row.environment_id, row.public_key, row.now, row.issued_at, row.outcome or "", row.failures)
        for row in rows
    ]


async def look_again(db: AsyncConnection, vm_id: str, at: datetime) -> None:
    """Nobody has to look after this VM's certificate before that time."""
    await db.execute(update(vms).where(vms.c.id == vm_id).values(certify_at=at))


async def outcome(engine: AsyncEngine, vm_id: str) -> str:
    """`succeeded` once this VM's agent has taken a certificate; else what it said to the newest, "" for nothing yet."""
    async with engine.connect() as db:
        return str((await db.execute(_OUTCOME, {"vm_id": vm_id})).scalar_one_or_none() or "")


_DUE = text(f"""
SELECT v.id, v.environment_id, v.public_key, now() AS now, newest.created_at AS issued_at, newest.outcome,
       (SELECT count(DISTINCT c.id) FROM agent_commands c
        JOIN agent_events e ON e.vm_id = c.vm_id AND e.command_id = c.id AND e.kind = 'result'
        WHERE c.vm_id = v.id AND c.kind = '{KIND}' AND c.created_at > now() - interval '8 hours'
          AND e.body ->> 'outcome' = 'failed') AS failures
FROM vms v
LEFT JOIN LATERAL (
    SELECT c.created_at, (SELECT e.body ->> 'outcome' FROM agent_events e
                          WHERE e.vm_id = c.vm_id AND e.command_id = c.id AND e.kind = 'result' LIMIT 1) AS outcome
    FROM agent_commands c
    WHERE c.vm_id = v.id AND c.kind = '{KIND}'
    ORDER BY c.created_at DESC LIMIT 1
) newest ON true
WHERE v.state = 'running' AND v.role = 'preview' AND v.public_key <> ''
  AND (v.certify_at IS NULL OR v.certify_at <= now())
ORDER BY v.certify_at NULLS FIRST
LIMIT :at_most
FOR UPDATE OF v SKIP LOCKED
""")

_OUTCOME = text(f"""
SELECT e.body ->> 'outcome'
FROM agent_commands c
LEFT JOIN agent_events e ON e.vm_id = c.vm_id AND e.command_id = c.id AND e.kind = 'result'
WHERE c.vm_id = :vm_id AND c.kind = '{KIND}'
ORDER BY coalesce(e.body ->> 'outcome', '') = 'succeeded' DESC, c.created_at DESC
LIMIT 1
""")
