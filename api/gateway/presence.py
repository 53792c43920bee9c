"""Who is there: heartbeats, silence, revocation, and sockets that hang. Once a second, for all agents together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.frames import CloseCode

from api.clients import DATABASE_ERRORS
from api.gateway.beats import Beats
from api.gateway.session import Phase, Session
from api.gateway.sessions import Sessions
from api.gateway.websocket import FULL, REVOKED
from stagely.db.queries import agents, sweeps
from stagely.db.queries.agents import Silence
from stagely.ids import mint
from stagely.logs import get_logger
from stagely.settings import Settings

SWEEP_S = 1.0  # Revocation must close a socket within 2 s (architecture section 4).
HELLO_TIMEOUT_S = 5.0  # From the socket's opening to the HELLO; the time we need to check it does not count.
CLOSE_TIMEOUT_S = 2.0  # For the agent's half of the closing handshake.
LOOK_S = 5.0  # Between two looks at all sessions, for those that fell silent or do not end.
MISSED_BEATS = 3  # A socket that brought nothing for this many heartbeats is a dead one.
SILENCE_SCAN_S = 5.0
BEAT_S = 5.0  # The reaper believes that agents are silent only while gateways say that they listen.
NEVER_S = 1e9

log = get_logger()


class Presence:
    """`lost_noted` is told the VMs whose silence was just put into the inbox."""

    def __init__(
        self,
        engine: AsyncEngine,
        beats: Beats,
        sessions: Sessions,
        settings: Settings,
        lost_noted: Callable[[list[str]], None],
    ) -> None:
        self._engine = engine
        self._beats = beats
        self._sessions = sessions
        self._settings = settings
        self._lost_noted = lost_noted
        self._asked_at: datetime | None = None
        # Silence counts only while we could have heard something: from our start, or the database's return, on.
        self._listening_since = sessions.clock()
        self._scanned_at = sessions.clock()
        self._instance = mint("gateway")
        self._said_at: float | None = None

    async def run(self) -> None:
        """Heartbeats, revocation and silence; all of it waits while the database is away."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._close_revoked()  # First: it has a deadline, and it is short.
                await self._beats.write()
                await self._find_silent()
                await self._say_listening()  # Last: it says that all of the above was done.
            except DATABASE_ERRORS as error:
                self._listening_since = self._sessions.clock()
                log.warning("presence waits for the database", error_code="database_away", reason=str(error)[:200])

    async def sweep(self) -> None:
        """End sockets that hang; needs nothing but the clock."""
        heartbeat_s = self._settings.heartbeat_s
        looked_at = self._sessions.clock()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._sessions.clock()
            hanging = self._sessions.newcomers()
            if now - looked_at >= min(LOOK_S, heartbeat_s / 6):
                hanging += self._sessions.unwell(now - MISSED_BEATS * heartbeat_s)
                looked_at = now
            for session in hanging:
                self._end_if_hanging(session, now)

    def _end_if_hanging(self, session: Session, now: float) -> None:
        waited_s = now - session.phase_since
        if session.phase is Phase.WAITING and waited_s > HELLO_TIMEOUT_S:
            log.warning("agent refused", peer=session.socket.peer, error_code="hello_timeout")
            session.refuse("hello_timeout", "no HELLO within 5 s", CloseCode.POLICY_VIOLATION, now)
        elif session.phase is Phase.CLOSED and waited_s > CLOSE_TIMEOUT_S:
            session.socket.abort()
        elif session.phase is Phase.OPEN and not session.socket.is_paused_for(FULL):  # Then it is we who do not listen.
            log.info("socket is dead", vm_id=session.who.vm_id, silent_s=round(now - session.heard_at))
            session.enter(Phase.CLOSED, now)
            session.socket.abort()

    async def _close_revoked(self) -> None:
        revoked, self._asked_at = await agents.revoked(self._engine, self._asked_at)
        for vm_id in revoked:
            session = self._sessions.of(vm_id)
            if session is not None:
                log.info("agent revoked", vm_id=vm_id)
                text = f"{vm_id} is being destroyed"
                session.refuse("vm_gone", text, REVOKED, self._sessions.clock(), final=True)

    async def _find_silent(self) -> None:
        now = self._sessions.clock()
        if now - self._scanned_at < min(SILENCE_SCAN_S, self._settings.builder_silence_s):
            return
        self._scanned_at = now
        settings = self._settings
        limits = Silence(
            builder_s=self._judged(settings.builder_silence_s, now),
            preview_s=self._judged(settings.preview_silence_s, now),
            boot_s=self._judged(settings.boot_timeout_s, now),
        )
        lost = await agents.note_lost(self._engine, limits)
        for vm_id in lost:
            log.error("agent lost", vm_id=vm_id, error_code="agent_silent")
        self._lost_noted(lost)

    async def _say_listening(self) -> None:
        now = self._sessions.clock()
        if self._said_at is None or now - self._said_at >= BEAT_S:
            await sweeps.note_gateway(self._engine, self._instance)
            self._said_at = now

    def _judged(self, silence_s: float, now: float) -> float:
        """The limit, once we have listened that long ourselves: an agent may have called in vain before."""
        return silence_s if now - self._listening_since >= silence_s else NEVER_S
