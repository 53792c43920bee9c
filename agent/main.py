"""The agent put together: settings, disk, the parts, and what each effect of the session means."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

from agent import health, registry, watchdog
from agent.budget import LogBudget
from agent.build import Builder
from agent.buildkit import BuildkitSocket
from agent.certificate import Certificate
from agent.commands import Commands, Crew
from agent.config import Config
from agent.connection import Backoff, Connection, Contact, Ends
from agent.containers import Container, Containers
from agent.deploy import Deployer
from agent.engine import Engine
from agent.files import read_text, write_private
from agent.identity import CredentialStore
from agent.ingress import Address, Ingress
from agent.logs import ServiceLogs
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore, open_spool
from agent.preview import Preview
from agent.protocol import INGRESS_PORT, AgentState, Exposed, Heartbeat, Outcome, Result
from agent.session import (
    AnswerAgain,
    Cancel,
    Effect,
    Execute,
    Forget,
    Hide,
    Identity,
    Install,
    PowerOff,
    Session,
    Welcomed,
)
from agent.streams import Batcher

LAST_WORDS_S = 2.0  # For the answer to a Shutdown to be stored before the machine is off.

log = logging.getLogger("stagely.agent")


class Agent:
    """One agent. `run` ends when the core has no more use for it, or by cancellation."""

    def __init__(
        self, config: Config, power_off: watchdog.PowerOff = watchdog.power_off, first_port: int = INGRESS_PORT
    ) -> None:
        self._config = config
        self._power_off = power_off
        self._group: asyncio.TaskGroup | None = None
        self._ended = asyncio.Event()
        self._batcher = Batcher()
        self._patterns = _kept_patterns(config.run_dir / "masks.json")
        boot_id, spool = open_spool(config.state_dir, config.run_dir)
        budget = LogBudget(config.state_dir / "log-bytes.json")
        self._outbox = Outbox(spool, ResultStore(config.state_dir / "results"), budget=budget)
        identity = Identity(config.agent_id, boot_id, config.token)
        self._session = Session(identity, self._outbox.results, spool.acked_seq)
        for command_id, seq in self._outbox.unsaid_results().items():
            self._session.finished(command_id, seq)
        self._credentials = CredentialStore(config.state_dir, config.run_dir)
        self._certificate = Certificate(config.state_dir)
        self._contact = Contact(time.monotonic())
        self._assemble(first_port)

    def _assemble(self, first_port: int) -> None:
        config, engine = self._config, Engine(self._config.docker_socket)
        self._containers = Containers(engine)
        self.ingress = Ingress(
            lambda exposed: address(self._containers, exposed),
            first_port=first_port,
            tls=lambda: self._certificate.context,
        )
        self._logs = ServiceLogs(
            config.state_dir, engine, self._containers, self._outbox, self._patterns, self._batcher
        )
        self._preview = Preview(config.state_dir, self._containers, self.ingress, self._logs)
        self._buildkit = BuildkitSocket(config.run_dir, config.docker_socket)
        builder = Builder(config.work_dir, config.run_dir, self._buildkit.variables)
        deployer = Deployer(config.work_dir, config.run_dir, engine, self._containers, self._preview)
        crew = Crew(builder, deployer, engine, self._containers)
        self._commands = Commands(crew, self._outbox, self._patterns, self._batcher, self._session.finished)
        registry.remove_leftovers(config.run_dir)
        builder.remove_leftovers()
        deployer.remove_leftovers()

    async def run(self) -> None:
        self._certificate.restore()
        if self._preview.restore():
            self._commands.rest_state = self._last_outcome()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for part in (self.ingress, self._containers, self._logs, self._batcher, self._buildkit):
                    group.create_task(part.run())
                group.create_task(watchdog.watch(self._contact, self._config.silence_limit_s, self._end))
                group.create_task(self._connect())
                group.create_task(self._until_ended())
        except* _Ended:
            log.info("agent ends")

    async def _connect(self) -> None:
        ends = Ends(self._session, self._credentials, self._outbox, self._contact, self._apply, self._heartbeat)
        await Connection(self._config.core_url, ends, Backoff(self._config.reconnect_first_wait_s)).run()

    async def _apply(self, effect: Effect) -> None:
        assert self._group is not None
        match effect:
            case Welcomed():
                self._credentials.rotate()
            case Forget(seq=seq):
                self._outbox.forget(seq)
            case Execute(command=command):
                self._commands.execute(command, self._group)
            case Cancel(stop_id=stop_id, target_id=target_id):
                self._commands.cancel(stop_id, target_id)
            case Install(command=command):
                self._commands.answer(self._certificate.install(command))
            case AnswerAgain(result=result):
                self._commands.answer(result)
            case Hide(values=values):
                self._patterns.add(values)
            case PowerOff(reason=reason, command_id=command_id):
                self._group.create_task(self._shut_down(reason, command_id))

    async def _shut_down(self, reason: str, command_id: str) -> None:
        if command_id:
            seq = self._commands.answer(Result(0, command_id, Outcome.SUCCEEDED))
            try:
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._outbox.wait_until_acked(seq)
            except TimeoutError:
                log.info("powering off before the core has confirmed the answer")
        await self._end(reason)

    async def _end(self, reason: str) -> None:
        await self._power_off(reason)
        self._ended.set()

    async def _until_ended(self) -> None:
        await self._ended.wait()
        raise _Ended

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self._commands.state,
            self._containers.services,
            health.disk_free_bytes(self._config.work_dir),
            health.memory_free_bytes(),
        )

    def _last_outcome(self) -> AgentState:
        result = self._outbox.results.get(self._logs.command_id)
        is_healthy = result is not None and result.outcome is Outcome.SUCCEEDED
        return AgentState.HEALTHY if is_healthy else AgentState.FAILED


class _Ended(Exception):
    """Ends the agent's task group."""


def address(containers: Containers, exposed: Exposed) -> Address | None:
    """Where this service's port is reached from the machine itself; None while no container of it runs."""
    running = [container for container in containers.of(exposed.service) if container.status == "running"]
    return _reach(containers, running[-1], exposed.port) if running else None


def _reach(containers: Containers, container: Container, port: int) -> Address | None:
    mode, _, other = container.network_mode.partition(":")
    if mode == "host":
        return "127.0.0.1", port
    if mode == "container":
        hosts = [one for one in containers.current if one.id.startswith(other) and one.status == "running"]
        return _reach(containers, hosts[0], port) if hosts else None
    if container.addresses:
        return container.addresses[0], port
    return ("127.0.0.1", container.ports[port]) if port in container.ports else None


def _kept_patterns(path: Path) -> Patterns:
    """Secret values outlive a restart of the agent in memory (`run_dir`), so that its services' logs stay masked."""

    def keep(values: frozenset[str]) -> None:
        write_private(path, json.dumps(sorted(values)))

    return Patterns(map(str, json.loads(read_text(path) or "[]")), keep)
