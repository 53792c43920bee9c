"""A limited number of builds runs at once: who comes later waits for a slot, in order, and sees its position."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.db.queries import slots
from stagely.errors import NoSlot
from workflows.orders import SlotRequest


@dataclass(frozen=True, slots=True)
class SlotActivities:
    """`limit`: builds at once, in the whole installation. `ask_again_s`: how long one waits between two tries."""

    engine: AsyncEngine
    limit: int
    ask_again_s: float

    @activity.defn
    async def acquire(self, request: SlotRequest) -> None:
        """Take the build's slot, or its place in the queue. Again: it keeps what it has.

        Raises:
            NoSlot: it must wait; the text says at which position. Ask again.
        """
        async with self.engine.begin() as db:
            await slots.enqueue(db, request.environment_id, request.run_id, [request.build_id])
            await slots.grant(db, self.limit)
            place = await slots.place(db, request.build_id)
        if place is not None:
            raise NoSlot(
                f"build {request.build_id} waits for a slot at position {place.position} of {place.waiting}: "
                f"{self.limit} builds run at once",
                retry_after_s=self.ask_again_s,
            )
