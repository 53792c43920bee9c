"""What agents say, on its way into Postgres: one batcher for all of them, and an Ack only after the commit.

A batch closes 50 ms after its first message, at 384 KiB, or at once when a result or a step is in it: somebody waits
for those. One transaction stores it. When a batch cannot be stored as it is, each agent's part is stored alone, so that
one agent's bad message never fails the others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.frames import CloseCode

from agent.protocol import Log
from api.clients import DATABASE_ERRORS, is_database_away
from api.gateway import rows
from api.gateway.nudges import Nudges
from api.gateway.rows import Rows
from api.gateway.session import Numbered, Session
from api.gateway.sessions import Clock
from stagely.db.queries.intake import Intake, StoredBefore
from stagely.logs import get_logger

WINDOW_S = 0.05  # gateway.md section 3: 50 ms cost half the CPU of 20 ms, and nobody reads a log faster.
BATCH_BYTES = 384 * 1024  # 50 agents' busy builds in one window; packing more at once would hold up everybody
RETRY_S = 0.5  # Postgres restarts in a second or two.
LOG_CHANNEL = "logs:{}"  # By environment: "there is something new to read", the rows are in Postgres.
STEP_CHANNEL = "environments:{}"
_PUBLISH = "for _, channel in ipairs(ARGV) do redis.call('PUBLISH', channel, '') end"  # One answer for any number.

log = get_logger()


@dataclass(frozen=True, slots=True)
class Received:
    session: Session
    message: Numbered
    size_bytes: int


class Inbox:
    """`results_stored` is told the VMs whose owners have something to hear."""

    def __init__(
        self, engine: AsyncEngine, redis: Redis, clock: Clock, results_stored: Callable[[list[str]], None]
    ) -> None:
        self._intake = Intake(engine)
        self._redis = redis
        self._clock = clock
        self._results_stored = results_stored
        self.nudges = Nudges(self._tell_readers, "log readers")
        self._pending: list[Received] = []
        self._pending_bytes = 0
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    def put(self, received: Received) -> None:
        if not self._pending:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self._due.set)
            self.idle.clear()
        self._pending.append(received)
        self._pending_bytes += received.size_bytes
        if not isinstance(received.message, Log) or self._pending_bytes >= BATCH_BYTES:
            self._due.set()

    async def run(self) -> None:
        try:
            while True:
                await self._due.wait()
                await self._store(self._take_batch())
                if not self._pending:
                    self.idle.set()
        finally:
            await self._intake.close()

    def _take_batch(self) -> list[Received]:
        """From the front at most a little over BATCH_BYTES. What is left stays due: it has waited already."""
        size_bytes = count = 0
        while count < len(self._pending) and size_bytes < BATCH_BYTES:
            size_bytes += self._pending[count].size_bytes
            count += 1
        batch, self._pending = self._pending[:count], self._pending[count:]
        self._pending_bytes -= size_bytes
        if not self._pending:
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
        return batch

    async def _store(self, batch: list[Received]) -> None:
        try:
            await self._store_when_there(batch)
        except Exception as error:  # The database's, or of a message that nobody foresaw: it must fail its sender only.
            log.error("batch refused, storing by agent", error_code="batch_refused", reason=_reason(error))
            for session, part in _by_session(batch):
                await self._store_part(session, part)

    async def _store_part(self, session: Session, part: list[Received]) -> None:
        try:
            await self._store_when_there(part)
        except Exception as error:  # As above.
            vm_id = session.who.vm_id
            log.error("agent's messages refused", vm_id=vm_id, error_code="store_refused", reason=_reason(error))
            session.has_hole = True
            text = "the core could not store these messages"
            session.refuse("store_refused", text, CloseCode.POLICY_VIOLATION, self._clock())

    async def _store_when_there(self, batch: list[Received]) -> None:
        """Try until the database is there: nothing was acknowledged, and the agents are slowed down meanwhile.

        Raises one of DATABASE_ERRORS when the database refused the values.
        """
        while True:
            try:
                await self._commit([received for received in batch if not received.session.has_hole])
                return
            except DATABASE_ERRORS as error:
                if not is_database_away(error):
                    raise
                log.warning("inbox waits for the database", messages=len(batch), reason=str(error)[:200])
                await asyncio.sleep(RETRY_S)

    async def _commit(self, batch: list[Received]) -> None:
        if not batch:
            return
        made = await rows.of(batch)
        await self._keep(batch, made)
        for received in batch:
            needs_owner = rows.needs_owner(received.session, received.message)
            received.session.note_stored(received.message, received.size_bytes, needs_owner=needs_owner)
        for session in {received.session for received in batch}:
            session.confirm()
        self._results_stored([event.vm_id for event in made.events if event.kind == "result"])
        channels = {LOG_CHANNEL.format(chunk.environment_id) for chunk in made.chunks}
        channels |= {STEP_CHANNEL.format(mark.environment_id) for mark in made.marks.values()}
        self.nudges.put(channels)

    async def _keep(self, batch: list[Received], made: Rows) -> None:
        """All of the batch is in the database when this returns, whoever put it there. `made`: its rows."""
        while True:
            try:
                await self._intake.store(made.chunks, made.events, made.marks)
                return
            except StoredBefore as error:  # By a session that the agent left; what remains is less each time.
                made = await rows.of(batch, error.seqs)

    async def _tell_readers(self, channels: list[str]) -> None:
        await self._redis.eval(_PUBLISH, 0, *channels)


def _reason(error: Exception) -> str:
    """The first line: those behind it (DETAIL) quote the row, which is people's output."""
    return str(error).partition("\n")[0][:500]


def _by_session(batch: Sequence[Received]) -> list[tuple[Session, list[Received]]]:
    parts: dict[Session, list[Received]] = {}
    for received in batch:
        parts.setdefault(received.session, []).append(received)
    return list(parts.items())
