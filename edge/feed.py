"""Routes from Redis over one connection: asked for by label, and withdrawn by push when a record changes.

The server remembers every key that was read here (client tracking, RESP3) and pushes its name once it changes. Replies
and pushes come down the same connection in order, so a push can never overtake the reply it makes stale.

Source: https://valkey.io/topics/client-side-caching, default mode.
"""

from __future__ import annotations

import asyncio
import collections
import math
import time
from typing import Protocol

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from edge.log import Log
from edge.routes import key_of

CONNECT_LIMIT_S = 2.0
PING_EVERY_S = 1.0  # An idle connection is asked this often whether it still lives.
REPLY_LIMIT_S = 1.0  # Redis answers in under a millisecond; with a ping each second a hang is noticed within 2 s.
RETRY_FIRST_S, RETRY_LAST_S = 0.05, 1.0  # Back within 5 s after Redis is, without hammering it meanwhile.
REPORT_EVERY_S = 30.0  # While Redis stays away; an operator's log must not drown in it.
WAITING_MAX = 10_000  # Labels asked for and not answered: more means that Redis is drowning.
_BATCH = 500
_PREFIX = "route:"


class RouteListener(Protocol):
    """Who hears what the feed learns. Called on the event loop; must not block or raise."""

    def learned(self, label: str, record: bytes | None) -> None:
        """The record of an asked label, None when there is none."""

    def changed(self, label: str | None) -> None:
        """The record of this label is no longer what was learned; None: no record is."""

    def lost(self) -> None:
        """Redis is away. Labels asked for stay unanswered; nothing is heard of changes."""

    def back(self) -> None:
        """Redis is there (again). What was learned before may have changed unheard."""


class Feed:
    """The one connection to Redis and its life."""

    def __init__(self, url: str, log: Log) -> None:
        self._log = log
        # Nothing but what the ACL of the edge's user allows: no client name, no library name, no maintenance pushes.
        self._pool = ConnectionPool.from_url(
            url,
            protocol=3,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_LIMIT_S,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._wanted: collections.deque[str] = collections.deque()
        self._in_flight: collections.deque[tuple[str | None, float]] = collections.deque()
        self._wake = asyncio.Event()
        self._quiet_until = 0.0  # Monotonic time of the next report that Redis is away.
        self.is_connected = False

    def ask(self, label: str) -> bool:
        """Ask for one label; the listener learns the answer. False: Redis is away or drowning, no answer will come."""
        if not self.is_connected or len(self._wanted) + len(self._in_flight) >= WAITING_MAX:
            return False
        self._wanted.append(label)
        self._wake.set()
        return True

    async def run(self, listener: RouteListener) -> None:
        """Connect, listen, and connect again, for ever."""
        delay_s, away_since = RETRY_FIRST_S, time.monotonic()
        while True:
            try:
                await self._session(listener)
            except* (RedisError, OSError, TimeoutError) as problem:
                if self.is_connected:
                    delay_s, away_since = RETRY_FIRST_S, time.monotonic()
                    self.is_connected = False
                    listener.lost()
                self._report(problem, time.monotonic() - away_since)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LAST_S)

    def _report(self, problem: BaseExceptionGroup[BaseException], away_s: float) -> None:
        if time.monotonic() < self._quiet_until:
            return
        self._quiet_until = time.monotonic() + REPORT_EVERY_S
        cause: BaseException = problem
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        self._log.warning(
            "redis is away",
            error=f"{type(cause).__name__}: {cause}"[:300],
            away_s=round(away_s, 1),
            remedy="start Redis or check STAGELY_REDIS_URL; known routes are served for a minute",
        )

    async def _session(self, listener: RouteListener) -> None:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._wanted.clear()
        self._in_flight.clear()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._open(connection, listener)
            self.is_connected = True
            self._quiet_until = 0.0
            self._log.info("redis connected")
            listener.back()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(connection, listener))
                tasks.create_task(self._write(connection))
        finally:
            await connection.disconnect(nowait=True)

    async def _open(self, connection: AbstractConnection, listener: RouteListener) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]

        async def pushed(message: list[bytes | list[bytes] | None]) -> None:
            _tell(message[1], listener)

        # redis-py's own client-side cache (which asyncio lacks) sets its handler on the parser the same way.
        connection._parser.set_invalidation_push_handler(pushed)  # type: ignore[attr-defined]
        await connection.send_command("CLIENT", "TRACKING", "ON")
        await connection.read_response()
        # A user that may not read routes is found out here and not by every visitor.
        await connection.send_command("GET", key_of("0"))
        await connection.read_response()

    async def _read(self, connection: AbstractConnection, listener: RouteListener) -> None:
        while True:
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as error:
                # The key holds no string: that label has no route, and the others must not suffer.
                self._log.warning("route not readable", label=self._in_flight[0][0], error=str(error)[:200])
                reply = None
            label, _ = self._in_flight.popleft()
            if label is not None:
                listener.learned(label, reply)

    async def _write(self, connection: AbstractConnection) -> None:
        """Send what is wanted in batches, and a ping when nothing is. Raises TimeoutError when replies stay out."""
        while True:
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = time.monotonic()
            if self._in_flight and now - self._in_flight[0][1] > REPLY_LIMIT_S:
                raise TimeoutError(f"no reply for {now - self._in_flight[0][1]:.1f} s")
            await self._send(connection, now)

    async def _send(self, connection: AbstractConnection, now: float) -> None:
        labels = [self._wanted.popleft() for _ in range(min(_BATCH, len(self._wanted)))]
        commands: list[tuple[str, ...]] = [("GET", key_of(label)) for label in labels] or [("PING",)]
        self._in_flight.extend((label, now) for label in labels)
        if not labels:
            self._in_flight.append((None, now))
        async with asyncio.timeout(REPLY_LIMIT_S):
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        if self._wanted:
            self._wake.set()


def _tell(keys: bytes | list[bytes] | None, listener: RouteListener) -> None:
    if keys is None:
        listener.changed(None)  # FLUSHALL and FLUSHDB.
        return
    for key in keys if isinstance(keys, list) else [keys]:
        listener.changed(key.decode().removeprefix(_PREFIX))
