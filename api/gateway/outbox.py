"""Commands out of the outbox to the agents, pushed again after every reconnect until they are answered.

The Redis channel carries the vm_id of a VM with a new command; it is a nudge only, the rows are looked at anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import json
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import Outcome, ProtocolError
from api.clients import DATABASE_ERRORS, REDIS_ERRORS
from api.gateway import rows
from api.gateway.commands import Tokens, frame_of, message_of, order_of
from api.gateway.session import Session
from api.gateway.sessions import Sessions
from stagely.db.queries import agents
from stagely.db.queries.agents import CommandRow
from stagely.errors import StagelyError
from stagely.logs import get_logger
from workflows.messages import CommandOrder, FailureReport

COMMAND_CHANNEL = "agent-commands"
SCAN_S = 3.0  # How long a command waits when its nudge was lost.
LISTEN_S = 30.0  # One wait on the channel; without a limit of its own the client's short one would apply.
TOKEN_TIMEOUT_S = 10.0
TOKEN_KEPT_S = 300.0  # GitHub's tokens live an hour; the agent needs its one for the clone only.
_NEEDS_REPOSITORY = ("build", "deploy")
_STEP_OF = {"build": "build", "deploy": "up"}  # The step of the timeline at which a command that was never sent ends.

log = get_logger()


class Push(enum.Enum):
    SENT = enum.auto()
    ANSWERED = enum.auto()  # Cannot be sent, and its owner is told so: what follows may go on.
    LATER = enum.auto()


class RepositoryTokens(Protocol):
    async def clone_token(self, repo_full_name: str) -> str:
        """A token that reads this one repository, or "" when none is needed."""
        ...


class Outbox:
    """`answered` is told the VMs whose owners have something to hear."""

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        sessions: Sessions,
        tokens: RepositoryTokens,
        answered: Callable[[list[str]], None],
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._sessions = sessions
        self._tokens = tokens
        self._answered = answered
        self._kept: dict[str, tuple[str, float]] = {}
        self._wanted: set[str] = set()
        self._pushing: set[str] = set()
        self._woken = asyncio.Event()
        self._scan_at = 0.0

    def want(self, vm_ids: Iterable[str]) -> None:
        """These VMs may have commands to get."""
        self._wanted.update(vm_ids)
        self._woken.set()

    async def listen(self) -> None:
        """Follow the channel; when Redis is away the scan below does alone."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(COMMAND_CHANNEL)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=LISTEN_S)
                        if message is not None:
                            self.want([str(message["data"])])
            except REDIS_ERRORS as error:
                log.warning("command nudges are away", error_code="redis_away", reason=str(error)[:200])
                await asyncio.sleep(1)

    async def run(self) -> None:
        """Push commands; one task per VM at a time, so that a slow token for one repository holds up nobody else."""
        async with asyncio.TaskGroup() as group:
            while True:
                for vm_id in await self._next():
                    self._pushing.add(vm_id)
                    group.create_task(self._push_all(vm_id))

    async def _next(self) -> list[str]:
        """VMs with something unsent, of those asked for, and every SCAN_S of all, however many ask."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._scan_at - time.monotonic())):
                await self._woken.wait()
        self._woken.clear()
        wanted, self._wanted = self._wanted, set()
        if time.monotonic() >= self._scan_at:
            wanted |= await self._with_open()
            self._scan_at = time.monotonic() + SCAN_S
        unsent = await self._with_unsent(wanted) if wanted else set()
        self._wanted |= unsent & self._pushing  # Asked for while a push runs: look again when it is over.
        return [vm_id for vm_id in unsent - self._pushing if self._sessions.of(vm_id)]

    async def _with_open(self) -> set[str]:
        """Of all VMs: few have an open command, and naming ten thousand that have none costs more than asking."""
        try:
            vm_ids = await agents.with_open_commands(self._engine)
        except DATABASE_ERRORS as error:
            log.warning("commands wait for the database", error_code="database_away", reason=str(error)[:200])
            return set()
        return {vm_id for vm_id in vm_ids if self._sessions.of(vm_id)}

    async def _with_unsent(self, vm_ids: set[str]) -> set[str]:
        """One question for all: a herd that comes back asks for thousands, and hardly one of them has a command."""
        try:
            commands = await agents.commands_of(self._engine, list(vm_ids), only_open=True)
        except DATABASE_ERRORS as error:
            log.warning("commands wait for the database", error_code="database_away", reason=str(error)[:200])
            return set()
        return {row.vm_id for row in commands if self._is_unsent(row)}

    def _is_unsent(self, row: CommandRow) -> bool:
        session = self._sessions.of(row.vm_id)
        return session is not None and row.id not in session.pushed

    async def _push_all(self, vm_id: str) -> None:
        try:
            session = self._sessions.of(vm_id)
            if session is not None:
                await self._push_in_order(session)
        except DATABASE_ERRORS as error:
            log.warning("commands wait for the database", vm_id=vm_id, reason=str(error)[:200])
        except Exception:  # Whatever is wrong with one VM's commands, the others get theirs.
            log.exception("commands of a VM failed", vm_id=vm_id, error_code="push_failed")
        finally:
            self._pushing.discard(vm_id)
            if vm_id in self._wanted:
                self._woken.set()

    async def _push_in_order(self, session: Session) -> None:
        commands = await agents.commands_of(self._engine, [session.who.vm_id], only_open=True)
        session.learn(commands)
        sent: list[str] = []
        for row in commands:
            if row.id in session.pushed:
                continue
            pushed = await self._push(session, row)
            if pushed is Push.LATER:
                break  # What comes behind it must not overtake it; the next scan tries again from here.
            if pushed is Push.SENT:
                sent.append(row.id)
        if sent:
            await agents.mark_sent(self._engine, sent)

    async def _push(self, session: Session, row: CommandRow) -> Push:
        try:
            order = order_of(row.body or {})
            message = message_of(order, session.who.repo_full_name, await self._open_tokens(session, order))
            frame = frame_of(message, session.version)
        except StagelyError as error:
            log.warning("command waits for a repository token", vm_id=row.vm_id, error_code=error.code)
            return Push.LATER
        except TimeoutError:
            log.warning("command waits for a repository token", vm_id=row.vm_id, error_code="timeout")
            return Push.LATER
        except ValueError as error:
            await self._answer_failed(session, row, error)
            return Push.ANSWERED
        session.send_frame(frame)
        session.pushed.add(row.id)
        log.info("command pushed", vm_id=row.vm_id, kind=row.kind, run_id=row.run_id)
        return Push.SENT

    async def _answer_failed(self, session: Session, row: CommandRow, error: ValueError) -> None:
        """Trying again cannot help: its owner hears of the failure as if the agent had answered."""
        code = error.code if isinstance(error, ProtocolError) else "bad_command"
        text = f"command {row.id} cannot be sent to its VM: {error}"[: rows.MESSAGE_CHARACTERS]
        log.error("command cannot be sent", vm_id=row.vm_id, error_code=code, reason=str(error)[:500])
        failure = FailureReport(_STEP_OF.get(row.kind, row.kind), text, row.subject, code=code)
        body = json.dumps({"outcome": Outcome.FAILED, "failure": dataclasses.asdict(failure)})
        await agents.answer(self._engine, session.who, row.id, body)
        session.pushed.add(row.id)
        self._answered([row.vm_id])

    async def _open_tokens(self, session: Session, order: CommandOrder) -> Tokens:
        if order.kind not in _NEEDS_REPOSITORY:
            return Tokens()
        return Tokens(repo=await self._clone_token(session.who.repo_full_name))

    async def _clone_token(self, repo_full_name: str) -> str:
        kept, until = self._kept.get(repo_full_name, ("", 0.0))
        if time.monotonic() < until:
            return kept
        token = await self._ask_token(repo_full_name)
        if token:  # "" may be a refusal of this moment: the next command asks again.
            self._kept[repo_full_name] = (token, time.monotonic() + TOKEN_KEPT_S)
        return token

    async def _ask_token(self, repo_full_name: str) -> str:
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT_S):
                return await self._tokens.clone_token(repo_full_name)
        except StagelyError as error:
            if error.retryable:
                raise
            # The agent tries without: a public repository opens, and else the clone's own message reaches a person.
            log.warning("no repository token", repo=repo_full_name, error_code=error.code, reason=str(error)[:300])
            return ""
