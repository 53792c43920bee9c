"""The one WebSocket to the core: dial, greet, listen, send the spool, beat; and dial again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from agent import protocol
from agent.identity import CredentialStore, IdentityError
from agent.outbox import Outbox
from agent.protocol import (
    NONCE_BYTES,
    NONCE_HEADER,
    WELCOME_TIMEOUT_S,
    Heartbeat,
    Hello,
    ProtocolError,
    ToAgent,
    Welcome,
)
from agent.session import Effect, Reconnect, Session

OPEN_TIMEOUT_S = 15.0
PING_S = 20.0  # With the same limit for the answer: a half-open connection is noticed within 40 s.
CLOSE_TIMEOUT_S = 2.0
LONGEST_WAIT_S = 60.0
FIRST_DIAL_S = 1.0  # Before the first Welcome nobody else is waiting: the core is just starting, or unreachable.
PATIENT_S = 10.0  # A refused dial this soon after a loss is a gateway that restarts: it does not double the wait.

_NONCE = re.compile(rf"[0-9a-f]{{{2 * NONCE_BYTES}}}")

log = logging.getLogger("stagely.agent.connection")


class Backoff:
    """How long to wait before dialling again. The jitter brings 10,000 agents back in 20 s without a queue."""

    def __init__(self, first_wait_s: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._first_wait_s = first_wait_s
        self._uniform = uniform
        self._base_s = FIRST_DIAL_S
        self._failures = 0
        self._lost_at = float("-inf")

    def after_loss(self, now: float) -> float:
        """A connection that had been welcomed is gone."""
        self._base_s, self._failures, self._lost_at = self._first_wait_s, 0, now
        return self._uniform(0.0, self._base_s)

    def after_failure(self, was_refused: bool, now: float) -> float:
        """A dial came to nothing."""
        if not (was_refused and now - self._lost_at < PATIENT_S):
            self._failures = min(self._failures + 1, 16)
        return self._uniform(0.0, min(LONGEST_WAIT_S, self._base_s * 2.0**self._failures))


@dataclass(slots=True)
class Contact:
    """When the core last had a use for this agent, on the monotonic clock: its Welcome and what came after it.

    A Refused is none: else an agent that no gateway understands any more would keep its machine for ever.
    `refusal` is what the core said instead, "" while it said nothing.
    """

    last: float
    refusal: str = ""

    def note(self) -> None:
        self.last, self.refusal = time.monotonic(), ""


class _Lost(Exception):
    """This connection is over; the text says why."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What the connection serves: `apply` carries out an effect, `heartbeat` says how the machine is now."""

    session: Session
    credentials: CredentialStore
    outbox: Outbox
    contact: Contact
    apply: Callable[[Effect], Awaitable[None]]
    heartbeat: Callable[[], Heartbeat]


class Connection:
    def __init__(self, url: str, ends: Ends, backoff: Backoff) -> None:
        self._url = url
        self._ends = ends
        self._backoff = backoff

    async def run(self) -> None:
        """Stay connected until the core says that it is of no use (the session has ended) or until cancelled."""
        while self._ends.session.phase != "ended":
            wait_s = await self._once()
            if self._ends.session.phase != "ended":
                await asyncio.sleep(wait_s)

    async def _once(self) -> float:
        """One connection from dial to loss; the seconds to wait before the next."""
        was_welcomed, was_refused = False, False
        try:
            await self._ends.credentials.open()  # Before the dial: the gateway waits 5 s only for what follows it.
            async with connect(
                self._url,
                compression=None,
                max_size=protocol.MAX_FRAME_BYTES,
                max_queue=4,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                close_timeout=CLOSE_TIMEOUT_S,
                proxy=None,
                user_agent_header=None,
            ) as socket:
                welcome = await self._greet(socket)
                was_welcomed = True
                await self._talk(socket, welcome)
        except ConnectionRefusedError as error:
            was_refused = True
            log.info("core not reached: %s", error)
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed, _Lost) as error:
            log.info("connection to the core is over: %s", error or type(error).__name__)
        except IdentityError as error:
            log.error("this agent cannot say who it is: %s", error)
        finally:
            self._ends.session.lost()
        now = time.monotonic()
        return self._backoff.after_loss(now) if was_welcomed else self._backoff.after_failure(was_refused, now)

    async def _greet(self, socket: ClientConnection) -> Welcome:
        await socket.send(protocol.encode(await self._hello(_nonce(socket))))
        async with asyncio.timeout(WELCOME_TIMEOUT_S):
            while True:
                message = await self._receive(socket)
                if message is not None:
                    await self._obey(message)
                if isinstance(message, Welcome):
                    self._ends.contact.note()
                    log.info("core reached")
                    return message

    async def _hello(self, nonce: str) -> Hello:
        credentials = self._ends.credentials
        return await credentials.signed(self._ends.session.connected(credentials.current), nonce)

    async def _talk(self, socket: ClientConnection, welcome: Welcome) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(socket))
                group.create_task(self._send_spool(socket))
                group.create_task(self._beat(socket, welcome.heartbeat_s))
        except* (ConnectionClosed, _Lost) as lost:
            raise _Lost(str(lost.exceptions[0])) from None

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            message = await self._receive(socket)
            self._ends.contact.note()
            if message is not None:
                await self._obey(message)

    async def _obey(self, message: ToAgent) -> None:
        for effect in self._ends.session.received(message):
            if isinstance(effect, Reconnect):
                self._ends.contact.refusal = effect.reason
                raise _Lost(effect.reason)
            await self._ends.apply(effect)
        if self._ends.session.phase == "ended":
            raise _Lost("the core has no use for this agent")

    async def _receive(self, socket: ClientConnection) -> ToAgent | None:
        """The next message, None for one that this version does not know (it stays unanswered and is named)."""
        text = await socket.recv(decode=True)
        try:
            return protocol.decode_to_agent(text)
        except ProtocolError as error:
            log.warning("frame of the core is not understood: %s", error)
            return None

    async def _send_spool(self, socket: ClientConnection) -> None:
        session, outbox = self._ends.session, self._ends.outbox
        while True:
            await outbox.wait_beyond(session.sent_seq)
            for seq, frame in outbox.spool.read(session.sent_seq, protocol.MAX_FRAME_BYTES):
                await socket.send(_in_version(frame, session.version))
                session.sent(seq)

    async def _beat(self, socket: ClientConnection, every_s: float) -> None:
        while True:
            await socket.send(protocol.encode(self._ends.heartbeat(), self._ends.session.version))
            self._ends.contact.note()  # The library's pings end a connection on which nobody answers.
            await asyncio.sleep(every_s)


def _nonce(socket: ClientConnection) -> str:
    """What this connection's Hello is signed over."""
    nonce = socket.response.headers.get(NONCE_HEADER, "") if socket.response is not None else ""
    if not _NONCE.fullmatch(nonce):
        raise _Lost(f"the core's answer has no {NONCE_HEADER} header; something between us drops it, or it is no core")
    return nonce


def _in_version(frame: str, version: int) -> str:
    """A spooled frame for a core that speaks this version; the spool has them in ours."""
    return frame if version == protocol.VERSION else protocol.encode(protocol.decode_to_core(frame), version)
