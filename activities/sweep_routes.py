"""The reaper's look at the route table: a label whose environment is gone leads nowhere, or to somebody else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import sightings
from activities.heartbeats import heartbeating
from edge.routes import BadRoute, Route, decode, is_label, key_of
from stagely import routing
from stagely.db.queries import sweeps
from workflows.sweeps import Findings, Leftover, Sweep

SCAN_COUNT = 1000  # Keys that Redis looks at per step; a step takes well below a millisecond.
_PREFIX = key_of("x")[:-1]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RouteSweeps:
    engine: AsyncEngine
    redis: Redis

    @activity.defn
    async def sweep_routes(self, sweep: Sweep) -> Findings:
        """Withdraw routes whose environment is gone or unknown. A record that is no route belongs to nobody."""
        async with heartbeating():
            routes = await self._routes()
            living = await sweeps.known_as_living(
                self.engine, {route.environment for route in routes.values() if route}
            )
            announced_before = time.time() - sweep.order.min_age_s
            stray = [label for label, route in routes.items() if _is_stray(route, living, announced_before)]
            due = await sightings.due(self.engine, sweep, Leftover.ROUTE, stray)
            withdrawn = [] if sweep.order.is_dry_run else due[: sweep.ceiling]
            await routing.withdraw(self.redis, withdrawn)
        for label in withdrawn:
            log.error("stray route withdrawn", route=label, error_code="stray_route")
        kind = str(Leftover.ROUTE)
        return Findings({kind: len(stray)}, {kind: len(due)}, {kind: len(withdrawn)})

    async def _routes(self) -> dict[str, Route | None]:
        """Every label and its route; None for a record that cannot be read."""
        found: dict[str, Route | None] = {}
        page: list[str] = []
        async for key in self.redis.scan_iter(match=f"{_PREFIX}*", count=SCAN_COUNT):
            page.append((key.decode() if isinstance(key, bytes) else key).removeprefix(_PREFIX))
            if len(page) >= SCAN_COUNT:
                found |= await self._read(page)
                page = []
        return found | await self._read(page)

    async def _read(self, labels: Sequence[str]) -> dict[str, Route | None]:
        known = [label for label in labels if is_label(label)]
        if not known:
            return {}
        values = await self.redis.mget([key_of(label) for label in known])
        return {label: _decoded(raw) for label, raw in zip(known, values, strict=True) if raw is not None}


def _decoded(raw: bytes | str) -> Route | None:
    try:
        return decode(raw)
    except BadRoute:
        return None


def _is_stray(route: Route | None, living: set[str], announced_before: float) -> bool:
    return route is None or (route.environment not in living and route.since <= announced_before)
