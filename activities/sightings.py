"""The reaper's patience: nothing is acted upon at first sight."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.db.queries import sweeps
from workflows.sweeps import Leftover, Sweep

SIGHTINGS = 2  # Sweeps in a row that must see it: one may meet a list that lags, or a step between two writes.


async def due(
    engine: AsyncEngine, sweep: Sweep, kind: Leftover, subjects: Collection[str], scope: str = ""
) -> list[str]:
    """Note what this sweep sees of a kind; gives back what was seen often and long enough to act, longest known first.

    Asked again within the same sweep (a retry) it counts nothing twice.
    """
    seen = await sweeps.sight(engine, kind, subjects, sweep.sweep_id, scope)
    ripe = [one for one in seen if one.count >= SIGHTINGS and one.known_s >= sweep.order.apart_s]
    return [one.subject for one in sorted(ripe, key=lambda one: (-one.known_s, one.subject))]
