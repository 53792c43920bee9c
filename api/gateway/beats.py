"""Heartbeats on their way into Postgres: all agents' together, and only what is news.

That an agent lives is written within a sixth of a heartbeat; what its preview runs at the next turn after it changed,
and again every few minutes, for the workflow writes the same column. Routes are kept alive as often.
"""

from __future__ import annotations

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import Heartbeat, Service
from api.gateway import rows
from api.gateway.nudges import Nudges
from api.gateway.session import Session
from api.gateway.sessions import Clock
from stagely import routing
from stagely.db.queries import beats
from stagely.db.queries.beats import Shown

GATHERING_S = 5.0  # How late a sign of life may be: little beside the shortest silence that ends a VM (90 s).
SHOW_AGAIN_S = 300.0  # A route lives an hour without this, and a statement costs the same for one row and for many.


class Beats:
    def __init__(self, engine: AsyncEngine, redis: Redis, clock: Clock, heartbeat_s: float) -> None:
        self._engine = engine
        self._redis = redis
        self._clock = clock
        self._gathering_s = min(GATHERING_S, heartbeat_s / 6)
        self._beating: dict[Session, tuple[Service, ...]] = {}  # With what the newest heartbeat says.
        self._has_news = False
        self._written_at = clock()
        self.refreshes = Nudges(self._refresh, "routes")

    def put(self, session: Session, heartbeat: Heartbeat) -> None:
        self._beating[session] = heartbeat.services
        self._has_news = self._has_news or hash(heartbeat.services) != session.shown

    async def write(self) -> None:
        """Write what is due. Raises one of DATABASE_ERRORS; what was not written is written with the next call."""
        now = self._clock()
        if not self._beating or not (self._has_news or now - self._written_at >= self._gathering_s):
            return
        beating, self._beating, self._has_news = self._beating, {}, False
        news = {session: services for session, services in beating.items() if _is_news(session, services, now)}
        shown = [Shown(session.who.vm_id, rows.services_json(services)) for session, services in news.items()]
        try:
            labels = await beats.note(self._engine, [session.who.vm_id for session in beating], shown)
        except BaseException:
            self._beating = beating | self._beating
            raise
        self._written_at = now
        for session, services in news.items():
            session.shown, session.shown_at = hash(services), now
        self.refreshes.put(labels)

    async def _refresh(self, labels: list[str]) -> None:
        await routing.refresh(self._redis, labels)


def _is_news(session: Session, services: tuple[Service, ...], now: float) -> bool:
    return hash(services) != session.shown or now - session.shown_at >= SHOW_AGAIN_S
