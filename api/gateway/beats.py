"""Heartbeats on their way into Postgres: all agents' together, and only what is news.

That an agent lives is written within a sixth of a heartbeat; what its preview runs at the next turn after it changed.
A workflow writes the same column with its agent's result, so it is written again a minute behind a result and behind
a session's first heartbeat; and every quarter of an hour, which keeps routes alive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
SHOW_AGAIN_S = 900.0  # A route lives an hour without this.
SETTLED_S = 60.0  # After so long a workflow has written what its agent's result said.

_NUMBERS = re.compile(r',"disk_free_bytes":[0-9]{1,18},"memory_free_bytes":[0-9]{1,18}\}')
_BEGIN = '{"type":"HEARTBEAT"'
_NUMBERS_BEGIN = ',"disk_free_bytes":'


@dataclass(frozen=True, slots=True)
class _News:
    services: tuple[Service, ...]
    mark: int


class Beats:
    def __init__(self, engine: AsyncEngine, redis: Redis, clock: Clock, heartbeat_s: float) -> None:
        self._engine = engine
        self._redis = redis
        self._clock = clock
        self._gathering_s = min(GATHERING_S, heartbeat_s / 6)
        self._beating: dict[Session, _News | None] = {}
        self._has_changes = False
        self._written_at = clock()
        self.refreshes = Nudges(self._refresh, "routes")

    def is_known(self, session: Session, text: str) -> bool:
        """Whether this frame is the session's last heartbeat but for its numbers; then it is dealt with.

        What stands before them was decoded when it was new, so that the whole is known to be good.
        """
        if not text.startswith(_BEGIN) or session.heard_at >= session.show_again_at:
            return False
        if _mark(text) != session.shown:
            return False
        self._beating.setdefault(session, None)
        return True

    def put(self, session: Session, heartbeat: Heartbeat, text: str) -> None:
        """Take one in, with the frame that it came in."""
        mark = _mark(text)
        if not session.settled_at:  # Its agent may have said a result on another line, just before it came here.
            self.expect_another_writer(session)
        self._beating[session] = _News(heartbeat.services, mark)
        if mark != session.shown:
            self._has_changes = True
            session.shown = 0  # Until this is written nothing is known: what was shown before would be news again.

    def expect_another_writer(self, session: Session) -> None:
        """Its workflow is about to write what the preview runs, perhaps later than what is heard next."""
        session.settled_at = self._clock() + SETTLED_S
        session.show_again_at = min(session.show_again_at, session.settled_at)

    async def write(self) -> None:
        """Write what is due. Raises one of DATABASE_ERRORS; what was not written is written with the next call."""
        now = self._clock()
        if not self._beating or not (self._has_changes or now - self._written_at >= self._gathering_s):
            return
        beating, self._beating, self._has_changes = self._beating, {}, False
        news = {session: one for session, one in beating.items() if one is not None}
        # By VM: of an older session of the same one, which ended meanwhile, nothing is shown.
        shown = {session.who.vm_id: rows.services_json(one.services) for session, one in news.items()}
        try:
            vm_ids = [session.who.vm_id for session in beating]
            labels = await beats.note(self._engine, vm_ids, [Shown(*one) for one in shown.items()])
        except BaseException:
            self._beating, self._has_changes = beating | self._beating, self._has_changes or bool(news)
            raise
        self._written_at = now
        for session, one in news.items():
            if self._beating.get(session) is None:
                session.shown = one.mark
                session.show_again_at = session.settled_at if session.settled_at > now else now + SHOW_AGAIN_S
        self.refreshes.put(labels)

    async def _refresh(self, labels: list[str]) -> None:
        await routing.refresh(self._redis, labels)


def _mark(text: str) -> int:
    """The hash of a heartbeat's frame without its numbers; of the whole where it is not as our agents write it."""
    at = text.rfind(_NUMBERS_BEGIN)
    return hash(text[:at]) if at > 0 and _NUMBERS.fullmatch(text, at) else hash(text)
