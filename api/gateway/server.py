"""The gateway put together: sockets on one side, loops on the other, this class between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import cast

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from websockets.frames import CloseCode

from agent.protocol import Heartbeat, Hello, Log, ProtocolError, Result, Status, ToCore
from api.gateway import reading
from api.gateway.beats import Beats
from api.gateway.forward import Forwarder
from api.gateway.hellos import Hellos
from api.gateway.inbox import Inbox, Received
from api.gateway.outbox import Outbox, RepositoryTokens
from api.gateway.presence import Presence
from api.gateway.session import Phase, SequenceGap, Session
from api.gateway.sessions import Sessions
from api.gateway.turns import Turns
from api.gateway.websocket import LEAVING, AgentSocket
from api.listen import BACKLOG, bind
from stagely.logs import get_logger
from stagely.settings import Settings
from stagely.tokens import EnrolmentTokens

RECEIVE_BUFFER_BYTES = 64 * 1024  # Bounds what the kernel keeps for an agent that we do not read from.
SEND_BUFFER_BYTES = 64 * 1024
DRAIN_TIMEOUT_S = 5.0  # For storing what was received; then agents are told to come back.
GOODBYE_S = 0.5
CANCEL_AGAIN_S = 0.5
CROWD = 3000  # HELLOs that a second lets in (reference/gateway.md section 5); who comes behind them is told to wait.

log = get_logger()


class Gateway:
    """Listens on `settings.gateway_listen` until `stop` is called. Holds nothing that a restart would lose."""

    def __init__(
        self,
        settings: Settings,
        engine: AsyncEngine,
        redis: Redis,
        temporal: Client,
        enrolment: EnrolmentTokens,
        tokens: RepositoryTokens,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._sessions = Sessions(clock)
        self._turns = Turns()
        self._forwarder = Forwarder(engine, temporal, self._sessions)
        self._outbox = Outbox(engine, redis, self._sessions, tokens, self._forwarder.nudge)
        self._inbox = Inbox(engine, redis, clock, self._forwarder.nudge)
        self._hellos = Hellos(engine, enrolment, self._sessions, settings.heartbeat_s, self._admitted)
        self._beats = Beats(engine, redis, clock, settings.heartbeat_s)
        self._presence = Presence(engine, self._beats, self._sessions, settings, self._forwarder.nudge)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: list[Exception] = []
        self.listening = asyncio.Event()
        self.addresses: list[tuple[str, int]] = []

    def stop(self) -> None:
        """Stop listening, store what was received, tell the agents to come back, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`. A loop that fails stops the rest and raises: half a gateway would look alive."""
        loop = asyncio.get_running_loop()
        sockets = [_prepared(listener) for listener in bind(self._settings.gateway_listen)]
        servers = [await loop.create_server(self._new_socket, sock=one, backlog=BACKLOG) for one in sockets]
        self.addresses = [one.getsockname()[:2] for one in sockets]
        log.info("gateway listening", addresses=self.addresses)
        self.listening.set()
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(self._guarded(run)) for run in self._loops()]
            await self._stopping.wait()
            for server in servers:
                server.close()
            await self._drain()
            await _end(self._tasks)
        if self._failures:
            raise ExceptionGroup("a loop of the gateway failed", self._failures)

    async def _guarded(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """One loop. Its end, whatever the cause, is the end of the gateway, by the one way that stops it."""
        try:
            await run()
        except Exception as error:
            log.exception("gateway loop failed", loop=run.__qualname__, error_code="loop_failed")
            self._failures.append(error)
        finally:
            self.stop()

    # Called by the sockets.

    def is_healthy(self) -> bool:
        """Whether every loop runs."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def is_crowded(self) -> bool:
        """Whether more agents wait to be let in than would be patient."""
        return self._hellos.waiting >= CROWD

    def opened(self, socket: AgentSocket) -> None:
        session = Session(socket, self._sessions.clock())
        socket.slot = session
        self._sessions.add(session)

    def is_stranger(self, socket: AgentSocket) -> bool:
        """Whether nobody is let in on this socket: not yet, or no longer."""
        return _session(socket).phase is not Phase.OPEN

    def closed(self, socket: AgentSocket) -> None:
        session = _session(socket)
        if session.phase is Phase.OPEN:
            log.info("agent disconnected", vm_id=session.who.vm_id)
        self._sessions.remove(session)

    def failed(self, socket: AgentSocket, reason: str) -> None:
        vm_id = _vm_id(_session(socket))
        log.warning("line broken off", vm_id=vm_id, peer=socket.peer, error_code="wire", reason=reason[:300])

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None:
        session = _session(socket)
        session.heard_at = now = self._sessions.clock()
        if session.phase is Phase.OPEN and self._beats.is_known(session, text):
            return
        try:
            self._dispatch(session, reading.decode(text), text, size_bytes)
        except ProtocolError as error:
            reason = str(error)[:300]
            log.warning("frame refused", vm_id=_vm_id(session), peer=socket.peer, error_code=error.code, reason=reason)
            session.refuse(error.code, reason, CloseCode.POLICY_VIOLATION, now)
        except SequenceGap as error:
            log.warning("sequence gap", vm_id=_vm_id(session), error_code="gap", reason=str(error))
            session.refuse_gap(error, now)

    def _dispatch(self, session: Session, message: ToCore, text: str, size_bytes: int) -> None:
        if isinstance(message, Hello):
            if session.phase is not Phase.WAITING:
                raise ProtocolError("unexpected_message", "HELLO is the first message and comes once")
            self._hellos.put(session, message)
        elif session.phase is not Phase.OPEN:
            raise ProtocolError("unexpected_message", "the first message is HELLO; wait for WELCOME")
        elif isinstance(message, Heartbeat):
            self._beats.put(session, message, text)
        else:
            self._take(session, message, size_bytes)

    def _take(self, session: Session, message: Log | Status | Result, size_bytes: int) -> None:
        if session.take(message, size_bytes):
            self._inbox.put(Received(session, message, size_bytes))
            if isinstance(message, Result):
                self._beats.expect_another_writer(session)

    def _admitted(self, vm_ids: list[str], with_commands: set[str]) -> None:
        self._forwarder.nudge(vm_ids)
        self._outbox.want(with_commands)

    def _new_socket(self) -> AgentSocket:
        return AgentSocket(self, self._turns)

    def _loops(self) -> Sequence[Callable[[], Coroutine[None, None, None]]]:
        return (
            self._hellos.run,
            self._inbox.run,
            self._inbox.nudges.run,
            self._forwarder.run,
            self._outbox.run,
            self._outbox.listen,
            self._presence.run,
            self._beats.refreshes.run,
            self._presence.sweep,
        )

    async def _drain(self) -> None:
        """Take nothing more in, wait until what came is stored, and say goodbye."""
        for session in self._sessions.every:
            session.socket.pause(LEAVING)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._inbox.idle.wait()
        except TimeoutError:
            log.warning("left with messages that were not stored; their agents send them again")
        for session in list(self._sessions.every):
            session.close(CloseCode.SERVICE_RESTART, "restart", self._sessions.clock())
            session.socket.resume(LEAVING)
        await self._wait_gone()

    async def _wait_gone(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._sessions.empty.wait()
        except TimeoutError:
            for session in list(self._sessions.every):
                session.socket.abort()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel, and again: redis-py 8.1 swallows a cancellation now and then (one stop in thirty hung)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


def _session(socket: AgentSocket) -> Session:
    return cast("Session", socket.slot)  # cast: `opened` put it there before anything else can happen.


def _vm_id(session: Session) -> str:
    return session.vm.vm_id if session.vm is not None else ""


def _prepared(listener: socket.socket) -> socket.socket:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener
