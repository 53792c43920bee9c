"""Commands out of the outbox to the agents, pushed again after every reconnect until they are answered.

The Redis channel carries the vm_id of a VM with a new command; it is a nudge only, the rows are looked at anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Protocol

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import ProtocolError
from api.clients import DATABASE_ERRORS, REDIS_ERRORS
from api.gateway.commands import Tokens, message_of, order_of
from api.gateway.session import Session
from api.gateway.sessions import Sessions
from stagely.db.queries import agents
from stagely.db.queries.agents import CommandRow
from stagely.errors import StagelyError
from stagely.logs import get_logger
from workflows.messages import CommandOrder

COMMAND_CHANNEL = "agent-commands"
SCAN_S = 3.0  # How long a command waits when its nudge was lost.
LISTEN_S = 30.0  # One wait on the channel; without a limit of its own the client's short one would apply.
TOKEN_TIMEOUT_S = 10.0
TOKEN_KEPT_S = 300.0  # GitHub's tokens live an hour; the agent needs its one for the clone only.
_NEEDS_REPOSITORY = ("build", "deploy")

log = get_logger()


class RepositoryTokens(Protocol):
    async def clone_token(self, repo_full_name: str) -> str:
        """A token that reads this one repository, or "" when none is needed."""
        ...


class Outbox:
    def __init__(self, engine: AsyncEngine, redis: Redis, sessions: Sessions, tokens: RepositoryTokens) -> None:
        self._engine = engine
        self._redis = redis
        self._sessions = sessions
        self._tokens = tokens
        self._kept: dict[str, tuple[str, float]] = {}
        self._wanted: set[str] = set()
        self._pushing: set[str] = set()
        self._woken = asyncio.Event()

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
        try:
            async with asyncio.timeout(SCAN_S):
                await self._woken.wait()
            wanted = self._wanted
        except TimeoutError:
            wanted = await self._with_open_commands()
        self._woken.clear()
        ready = [vm_id for vm_id in wanted if vm_id not in self._pushing and self._sessions.of(vm_id)]
        self._wanted = self._wanted & self._pushing  # Asked for while a push runs: look again when it is over.
        return ready

    async def _with_open_commands(self) -> set[str]:
        try:
            rows = await agents.commands_of(self._engine, self._sessions.vm_ids(), only_open=True)
        except DATABASE_ERRORS as error:
            log.warning("commands wait for the database", error_code="database_away", reason=str(error)[:200])
            return set()
        return {row.vm_id for row in rows if self._is_unsent(row)}

    def _is_unsent(self, row: CommandRow) -> bool:
        session = self._sessions.of(row.vm_id)
        return session is not None and row.id not in session.pushed

    async def _push_all(self, vm_id: str) -> None:
        try:
            session = self._sessions.of(vm_id)
            rows = await agents.commands_of(self._engine, [vm_id], only_open=True)
            if session is not None:
                session.learn(rows)
                sent = [row.id for row in rows if row.id not in session.pushed and await self._push(session, row)]
                if sent:
                    await agents.mark_sent(self._engine, sent)
        except DATABASE_ERRORS as error:
            log.warning("commands wait for the database", vm_id=vm_id, reason=str(error)[:200])
        finally:
            self._pushing.discard(vm_id)
            if vm_id in self._wanted:
                self._woken.set()

    async def _push(self, session: Session, row: CommandRow) -> bool:
        """Whether the command is on its way; otherwise the next scan tries again."""
        try:
            order = order_of(row.body or {})
            message = message_of(order, session.who.repo_full_name, await self._open_tokens(session, order))
        except StagelyError as error:
            log.warning("command waits for a repository token", vm_id=row.vm_id, error_code=error.code)
            return False
        except TimeoutError:
            log.warning("command waits for a repository token", vm_id=row.vm_id, error_code="timeout")
            return False
        except (ValueError, ProtocolError) as error:
            log.error("command cannot be sent", vm_id=row.vm_id, error_code="bad_command", reason=str(error)[:500])
            session.pushed.add(row.id)  # Trying again cannot help on this line; its owner's deadline ends the wait.
            return False
        session.send(message)
        session.pushed.add(row.id)
        log.info("command pushed", vm_id=row.vm_id, kind=row.kind, run_id=row.run_id)
        return True

    async def _open_tokens(self, session: Session, order: CommandOrder) -> Tokens:
        if order.kind not in _NEEDS_REPOSITORY:
            return Tokens()
        return Tokens(repo=await self._clone_token(session.who.repo_full_name))

    async def _clone_token(self, repo_full_name: str) -> str:
        kept, until = self._kept.get(repo_full_name, ("", 0.0))
        if time.monotonic() < until:
            return kept
        token = await self._ask_token(repo_full_name)
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
