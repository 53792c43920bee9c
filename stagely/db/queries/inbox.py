"""The inbox: events on their way from agents to the workflows that own their VMs. intake.py writes them.

Batches travel as arrays (`unnest`), so one statement serves any number of agents and is prepared once. Every write may
run again: repeats are told apart by primary keys. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.db.queries.intake import EventKey


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """A stored event that its owner was not told yet. `body` is an AgentEvent as JSON."""

    vm_id: str
    boot_id: str
    seq: int
    kind: str
    command_id: str
    owner_workflow_id: str
    body: dict[str, Any]  # Any: JSON.
    command_kind: str = ""


async def pending_events(
    engine: AsyncEngine, vm_ids: Sequence[str] | None, older_than_s: float = 0.0
) -> list[PendingEvent]:
    """Events that wait for their owner, of these VMs or (None) of all, in each VM's order. At most 500."""
    values = {"vm_ids": list(vm_ids or ()), "everyone": vm_ids is None, "older_than_s": older_than_s}
    async with engine.connect() as connection:
        rows = await connection.execute(_PENDING, values)
        return [
            PendingEvent(
                r.vm_id, r.boot_id, r.seq, r.kind, r.command_id, r.owner_workflow_id, r.body, r.command_kind or ""
            )
            for r in rows
        ]


async def mark_forwarded(engine: AsyncEngine, events: Sequence[PendingEvent]) -> None:
    """The owners took these events; commands that they answer are closed."""
    answered = [event.command_id for event in events if event.kind == "result"]
    async with engine.begin() as connection:
        await connection.execute(_MARK_FORWARDED, columns(events, ("vm_id", "boot_id", "seq")))
        if answered:
            await connection.execute(_MARK_ANSWERED, {"ids": answered})


async def forwarded(engine: AsyncEngine, keys: Sequence[EventKey]) -> set[EventKey]:
    """Those of `keys` whose owner was told (by any gateway)."""
    vm_ids, boot_ids, seqs = (list(column) for column in zip(*keys, strict=True)) if keys else ([], [], [])
    async with engine.connect() as connection:
        rows = await connection.execute(_FORWARDED, {"vm_id": vm_ids, "boot_id": boot_ids, "seq": seqs})
        return {(row.vm_id, row.boot_id, row.seq) for row in rows}


def columns(rows: Sequence[object], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows turned into one list per column, as `unnest` takes them."""
    return {name: [getattr(row, name) for row in rows] for name in names}


_MARK_ANSWERED = text("""
UPDATE agent_commands SET answered_at = now() WHERE id = ANY(CAST(:ids AS text[])) AND answered_at IS NULL
""")

_PENDING = text("""
SELECT e.vm_id, e.boot_id, e.seq, e.kind, e.command_id, e.body, v.owner_workflow_id, c.kind AS command_kind
FROM agent_events e JOIN vms v ON v.id = e.vm_id LEFT JOIN agent_commands c ON c.id = e.command_id
WHERE e.forwarded_at IS NULL
  AND (CAST(:everyone AS boolean) OR e.vm_id = ANY(CAST(:vm_ids AS text[])))
  AND e.received_at <= now() - make_interval(secs => :older_than_s)
ORDER BY e.received_at, e.vm_id, e.seq
LIMIT 500
""")

_MARK_FORWARDED = text("""
UPDATE agent_events e SET forwarded_at = now()
FROM unnest(CAST(:vm_id AS text[]), CAST(:boot_id AS text[]), CAST(:seq AS integer[])) AS g(vm_id, boot_id, seq)
WHERE e.vm_id = g.vm_id AND e.boot_id = g.boot_id AND e.seq = g.seq AND e.forwarded_at IS NULL
""")

_FORWARDED = text("""
SELECT e.vm_id, e.boot_id, e.seq
FROM agent_events e
JOIN unnest(CAST(:vm_id AS text[]), CAST(:boot_id AS text[]), CAST(:seq AS integer[])) AS g(vm_id, boot_id, seq)
  ON e.vm_id = g.vm_id AND e.boot_id = g.boot_id AND e.seq = g.seq
WHERE e.forwarded_at IS NOT NULL
""")
