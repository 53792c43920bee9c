"""Signs of life: when an agent was last heard, and what its preview runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(frozen=True, slots=True)
class Shown:
    """What one VM runs. `services` is JSON text, a list of {name, status, health, exit_code}."""

    vm_id: str
    services: str


async def note(engine: AsyncEngine, vm_ids: Sequence[str], shown: Sequence[Shown]) -> list[str]:
    """Remember that these VMs live, and of some what their previews run. Returns these previews' route labels."""
    async with engine.begin() as connection:
        await connection.execute(_SEEN, {"vm_ids": list(vm_ids)})
        if not shown:
            return []
        columns = {"vm_id": [one.vm_id for one in shown], "services": [one.services for one in shown]}
        rows = await connection.execute(_SHOWN, columns)
        return [str(label) for row in rows for label in row.labels]


_SEEN = text("UPDATE vms SET last_seen_at = now() WHERE id = ANY(CAST(:vm_ids AS text[])) AND state = 'running'")

_SHOWN = text("""
UPDATE environments e SET last_heartbeat = now(), services = CAST(g.services AS json)
FROM unnest(CAST(:vm_id AS text[]), CAST(:services AS text[])) AS g(vm_id, services)
WHERE e.vm_id = g.vm_id AND g.vm_id <> ''
RETURNING e.labels
""")
