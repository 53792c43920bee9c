"""What agents said, written into the inbox: log chunks and events, each kept once, in its agent's order.

What is stored of one boot of a VM always is everything up to some number: agents count without gaps, a session begins
behind what is stored, and one writer at a time is in here. So a message is a repeat when its number is not above the
highest one stored, and a chunk may hold many messages: its row needs the last number only.

Statements are given to asyncpg itself, on a connection of its own: log chunks alone, which is nearly every batch, cost
one round trip; three had a third of the CPU that they took through SQLAlchemy's pool. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

INBOX_LOCK = 4_705_001  # Any number that nothing else in this database locks; store_log_chunks locks it, too.
STORED_BEFORE = "SG001"  # What store_log_chunks (migration 0007) fails with; classes from I on are nobody's.

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # Generic to type checkers only.


class StoredBefore(Exception):
    """Another session of the same VM stored a part of this batch meanwhile: `seqs` has how far each boot is stored.

    Nothing of the batch was kept. What is behind those numbers may be given again.
    """

    def __init__(self, seqs: Mapping[tuple[str, str], int]) -> None:
        super().__init__(f"{len(seqs)} agents' messages are stored already, in part or whole")
        self.seqs = seqs


@dataclass(frozen=True, slots=True)
class NewChunk:
    """Lines of one stream out of an agent's messages `first_seq` to `seq`."""

    vm_id: str
    boot_id: str
    first_seq: int
    seq: int
    environment_id: str
    run_id: str
    stream: str
    codec: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NewEvent:
    """`body` is JSON text: an AgentEvent for results and losses, which owners are told, else the message's fields."""

    vm_id: str
    boot_id: str
    seq: int
    team_id: str
    kind: str
    command_id: str
    body: str


@dataclass(frozen=True, slots=True)
class StepMark:
    """`name` of a command began (`state` running) or its running step ended (another state, `name` "")."""

    environment_id: str
    run_id: str
    subject: str
    team_id: str
    name: str
    state: str


EventKey = tuple[str, str, int]  # vm_id, boot_id, seq


class Intake:
    """One writer with a connection of its own, made when it is needed and again after it broke."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._driver: Driver | None = None

    async def store(
        self, chunks: Sequence[NewChunk], events: Sequence[NewEvent], marks: Mapping[EventKey, StepMark]
    ) -> None:
        """Keep log chunks and events in one transaction; of one boot of a VM no number may be in two of them.

        `marks` are made for events that are new: progress as people see it. The workflow's own record overrides them.

        Raises:
            StoredBefore: a chunk holds messages that are stored already. Events that are there already just stay.
            asyncpg.PostgresError, asyncpg.InterfaceError, sqlalchemy.exc.SQLAlchemyError, OSError: nothing was kept,
                or (a connection that broke at the end) everything was; the same batch may be given again.
        """
        driver = self._driver
        if driver is None or driver.is_closed():
            driver = await self._connect()
        try:
            await _transact(driver, chunks, events, marks)
        except StoredBefore:
            raise
        except asyncpg.IntegrityConstraintViolationError:
            await self._roll_back(driver)
            raise
        except asyncpg.DataError:  # Its text would quote the value.
            await self._roll_back(driver)
            raise asyncpg.DataError("a value does not fit its column") from None
        except asyncpg.InternalClientError as error:  # The server's goodbye is read, the end is not.
            await self.close()
            raise asyncpg.ConnectionDoesNotExistError("the server ended the connection") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the connection up; the next batch makes another."""
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def _connect(self) -> Driver:
        await self.close()  # What an attempt before this one may have left half made.
        self._connection = await self._engine.connect()
        raw = await self._connection.get_raw_connection()
        self._driver = cast("Driver", raw.driver_connection)  # cast: this engine's driver is asyncpg.
        return self._driver

    async def _roll_back(self, driver: Driver) -> None:
        if not driver.is_in_transaction():
            return
        try:
            await driver.execute("ROLLBACK")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self.close()  # Broken, which ends the transaction as well.


async def store_events(connection: AsyncConnection, events: Sequence[NewEvent]) -> None:
    """Keep events inside the caller's transaction; those that are there already stay."""
    await connection.exec_driver_sql(_STORE_EVENTS, tuple(_columns(events, _EVENT_FIELDS)))


async def _transact(
    driver: Driver, chunks: Sequence[NewChunk], events: Sequence[NewEvent], marks: Mapping[EventKey, StepMark]
) -> None:
    # Readers follow logs by id. Under the inbox's lock ids become visible in their order, whatever gateways run beside.
    if not events:
        await _store_chunks(driver, chunks)
        return
    await driver.execute(_BEGIN)
    await _store_chunks(driver, chunks)
    rows = await driver.fetch(_STORE_EVENTS, *_columns(events, _EVENT_FIELDS))
    for key in sorted((row["vm_id"], row["boot_id"], row["seq"]) for row in rows):
        mark = marks.get(key)
        if mark is not None:
            await _mark_step(driver, mark)
    await driver.execute("COMMIT")


async def _store_chunks(driver: Driver, chunks: Sequence[NewChunk]) -> None:
    """Under the lock, in the transaction that is open, or else in one of its own. Raises StoredBefore."""
    if not chunks:
        return
    try:
        await driver.execute(_STORE_CHUNKS, *_columns(chunks, _CHUNK_FIELDS))
    except asyncpg.PostgresError as error:
        if error.sqlstate != STORED_BEFORE:
            raise
        if driver.is_in_transaction():
            await driver.execute("ROLLBACK")
        raise StoredBefore(await _stored_seqs(driver, chunks)) from None


async def _stored_seqs(driver: Driver, chunks: Sequence[NewChunk]) -> dict[tuple[str, str], int]:
    rows = await driver.fetch(_STORED_SEQS, *_columns(chunks, ("vm_id", "boot_id")))
    return {(row["vm_id"], row["boot_id"]): row["seq"] for row in rows}


async def _mark_step(driver: Driver, mark: StepMark) -> None:
    subject = (mark.environment_id, mark.run_id, mark.subject)
    if mark.name:
        await driver.execute(_TAKE_BACK_STEPS, *subject, mark.name)
    await driver.execute(_END_STEPS, *subject, mark.state)
    if mark.name:
        await driver.execute(_BEGIN_STEP, *subject, mark.name, mark.team_id)


def _columns(rows: Sequence[object], names: Sequence[str]) -> list[list[Any]]:  # Any: a column's type.
    """Rows turned into one list per column, as `unnest` takes them."""
    return [[getattr(row, name) for row in rows] for name in names]


_CHUNK_FIELDS = ("vm_id", "boot_id", "first_seq", "seq", "environment_id", "run_id", "stream", "codec", "data")
_EVENT_FIELDS = ("vm_id", "boot_id", "seq", "team_id", "kind", "command_id", "body")

_BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock({INBOX_LOCK})"

_STORE_CHUNKS = "SELECT store_log_chunks($1, $2, $3, $4, $5, $6, $7, $8, $9)"

_STORED_SEQS = """
SELECT g.vm_id, g.boot_id,
       greatest(0, (SELECT max(c.seq) FROM log_chunks c WHERE c.vm_id = g.vm_id AND c.boot_id = g.boot_id),
                (SELECT max(e.seq) FROM agent_events e WHERE e.vm_id = g.vm_id AND e.boot_id = g.boot_id)) AS seq
FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[])) AS g(vm_id, boot_id)
"""

_STORE_EVENTS = """
INSERT INTO agent_events (vm_id, boot_id, seq, team_id, kind, command_id, body, received_at, forwarded_at)
SELECT vm_id, boot_id, seq, team_id, kind, command_id, body::json, now(),
       CASE WHEN kind IN ('result', 'lost') THEN NULL ELSE now() END
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
     AS g(vm_id, boot_id, seq, team_id, kind, command_id, body)
ON CONFLICT DO NOTHING
RETURNING vm_id, boot_id, seq
"""

_IN_ORDER = "array['clone', 'build', 'push', 'pull', 'up', 'health']"

# In this order steps follow one another: what is not before the one that begins is of an attempt that was cut short.
_TAKE_BACK_STEPS = f"""
DELETE FROM steps WHERE environment_id = $1 AND run_id = $2 AND subject = $3
  AND array_position({_IN_ORDER}, name) >= array_position({_IN_ORDER}, $4)
  AND NOT EXISTS (SELECT FROM workflow_runs WHERE id = $2 AND ended_at IS NOT NULL)
"""

_END_STEPS = f"""
UPDATE steps SET state = CASE $4 WHEN 'running' THEN 'completed' ELSE $4 END, ended_at = now()
WHERE environment_id = $1 AND run_id = $2 AND subject = $3 AND state = 'running' AND name = ANY({_IN_ORDER})
"""

_BEGIN_STEP = """
INSERT INTO steps (environment_id, run_id, name, subject, team_id, state, started_at, detail)
VALUES ($1, $2, $4, $3, $5, 'running', now(), '')
ON CONFLICT DO NOTHING
"""
