"""Build slots: a queue in the order of asking, of which the first so many are granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stagely.db.models import utc_now
from stagely.db.tables import build_slots, environments

_LOCK = 4_705_002  # Any number that nothing else in this database locks.


@dataclass(frozen=True, slots=True)
class Place:
    """A build's place among those that wait: 1 is next."""

    position: int
    waiting: int


async def enqueue(db: AsyncConnection, environment_id: str, run_id: str, build_ids: Sequence[str]) -> None:
    """Put builds at the queue's end, in this order. One that is in it keeps its place."""
    team = select(environments.c.team_id).where(environments.c.id == environment_id).scalar_subquery()
    for build_id in build_ids:
        values = {"build_id": build_id, "team_id": team, "environment_id": environment_id, "run_id": run_id}
        await db.execute(insert(build_slots).values(**values, queued_at=utc_now()).on_conflict_do_nothing())


async def grant(db: AsyncConnection, limit: int) -> set[str]:
    """Give what is free to the first in the queue. The ids of all builds that have a slot now.

    Under a lock until the transaction ends, so that two callers cannot give the same slot away.
    """
    await db.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    await db.execute(_GRANT, {"limit": limit})
    granted = await db.execute(select(build_slots.c.build_id).where(build_slots.c.granted_at.is_not(None)))
    return set(granted.scalars())


async def place(db: AsyncConnection, build_id: str) -> Place | None:
    """Where the build waits; None: it has its slot."""
    row = (await db.execute(_PLACE, {"build_id": build_id})).one()
    return None if row.position is None else Place(row.position, row.waiting)


async def free(db: AsyncConnection, *, build_id: str = "", run_id: str = "") -> None:
    """Give back the slot, or the place in the queue, of one build or of all builds of a run. None there: nothing."""
    where = build_slots.c.build_id == build_id if build_id else build_slots.c.run_id == run_id
    await db.execute(delete(build_slots).where(where))


_GRANT = text("""
UPDATE build_slots SET granted_at = now() WHERE build_id IN (
    SELECT build_id FROM build_slots WHERE granted_at IS NULL ORDER BY number
    LIMIT greatest(0, :limit - (SELECT count(*) FROM build_slots WHERE granted_at IS NOT NULL))
)
""")

_PLACE = text("""
SELECT (SELECT count(*) FROM build_slots w, build_slots mine
        WHERE mine.build_id = :build_id AND mine.granted_at IS NULL AND w.granted_at IS NULL
          AND w.number <= mine.number
        HAVING count(*) > 0) AS position,
       (SELECT count(*) FROM build_slots WHERE granted_at IS NULL) AS waiting
""")
