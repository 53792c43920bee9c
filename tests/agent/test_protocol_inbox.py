"""Many agents, some of them hostile, and one inbox over a real database: the others' messages are stored as ever."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import (
    Heartbeat,
    Hello,
    Log,
    Message,
    ProtocolError,
    Refused,
    Result,
    Status,
    ToCore,
    decode_to_agent,
    decode_to_core,
    encode,
)
from api.gateway.inbox import Inbox, Received
from api.gateway.session import Phase, SequenceGap, Session
from api.gateway.websocket import AgentSocket
from stagely.db.queries.agents import CommandRow, EnrolledVm
from tests.agent.hostile import a_message, spoil
from tests.api.ledger import Ledger

STORED_WITHIN_S = 30.0
HOSTILE, GOOD = 12, 4
SAYS = 8  # Messages of each agent between two looks at the inbox.
POISON = "poison"  # A line that the test's database refuses, as it would refuse what we did not think of.
KINDS: tuple[type[ToCore], ...] = (Log, Log, Status, Result, Heartbeat, Hello)


@dataclass(slots=True)
class Socket:
    """Stands for AgentSocket: keeps what the agent is told, as it would go over the wire."""

    told: list[bytes] = field(default_factory=list)

    def send(self, frame: str) -> None:
        self.told.append(frame.encode())

    def close(self, code: int, reason: str) -> None:
        self.told.append(reason.encode())

    def pause(self, reason: int) -> None: ...

    def resume(self, reason: int) -> None: ...


@dataclass(slots=True)
class Agent:
    """A VM's agent; every session is a boot of its own, so that it counts from 1 again."""

    vm: EnrolledVm
    session: Session
    socket: Socket
    boots: int = 1
    seq: int = 0
    said: list[str] = field(default_factory=list)

    def boot_again(self) -> None:
        self.boots += 1
        self.seq = 0
        self.vm = replace(self.vm, boot_id=f"boot-{self.boots}")
        self.session, self.socket = opened(self.vm)


def an_agent(name: str) -> Agent:
    vm = EnrolledVm(
        vm_id=name, team_id="team", project_id="prj", environment_id=f"env-of-{name}", run_id=f"run-of-{name}",
        role="builder", owner_workflow_id="run", repo_full_name="local/guestbook", boot_id="boot-1", acked_seq=0,
    )  # fmt: skip
    session, socket = opened(vm)
    return Agent(vm, session, socket)


def opened(vm: EnrolledVm) -> tuple[Session, Socket]:
    socket = Socket()
    session = Session(cast("AgentSocket", socket), time.monotonic())  # cast: a session only sends, pauses and closes.
    session.open(vm, time.monotonic())
    session.learn([CommandRow("run-1/b-1/1", vm.vm_id, vm.run_id, "build", "api", None)])
    return session, socket


def receive(inbox: Inbox, session: Session, raw: bytes) -> None:
    """What the gateway does with a frame of an open session."""
    now = time.monotonic()
    try:
        frame = raw.decode()
    except UnicodeDecodeError:
        return session.close(1007, "not UTF-8", now)
    try:
        message = decode_to_core(frame)
        if isinstance(message, Log | Status | Result) and session.take(message, len(raw)):
            inbox.put(Received(session, message, len(raw)))
    except ProtocolError as error:
        session.refuse(error.code, str(error)[:300], 1008, now)
    except SequenceGap as error:
        session.refuse_gap(error, now)


@dataclass(slots=True)
class Crowd:
    """Good agents and hostile ones that speak in turns."""

    inbox: Inbox
    rng: random.Random
    good: list[Agent] = field(default_factory=lambda: [an_agent(f"good-{n}") for n in range(GOOD)])
    hostile: list[Agent] = field(default_factory=lambda: [an_agent(f"hostile-{n}") for n in range(HOSTILE)])
    hostile_frames: int = 0

    async def speak(self, hostile_frames: int) -> None:
        while self.hostile_frames < hostile_frames:
            speakers = (self.good + self.hostile) * SAYS
            self.rng.shuffle(speakers)
            for agent in speakers:
                self._let_speak(agent)
            async with asyncio.timeout(STORED_WITHIN_S):
                await self.inbox.idle.wait()

    def _let_speak(self, agent: Agent) -> None:
        if agent in self.good:
            agent.seq += 1
            agent.said.append(f"line {agent.seq} ✓\n")
            receive(self.inbox, agent.session, encode(Log(agent.seq, "", "deploy", agent.said[-1])).encode())
            return
        self.hostile_frames += 1
        receive(self.inbox, agent.session, self._hostile_frame(agent))
        if agent.session.phase is Phase.CLOSED:
            agent.boot_again()

    def _hostile_frame(self, agent: Agent) -> bytes:
        """In the right place of the order, so that it gets as far as it can, or at a number that was there before."""
        if self.rng.random() < 0.9:
            agent.seq += 1
        message = self._message(agent.seq)
        return spoil(message, self.rng) if self.rng.random() < 0.7 else encode(message).encode()

    def _message(self, seq: int) -> Message:
        kind = self.rng.choice(KINDS)
        if self.rng.random() < 0.02:
            return Log(seq, "", "deploy", POISON)
        return a_message(kind, self.rng, **({} if kind in (Heartbeat, Hello) else {"seq": seq}))

    def told_the_good(self) -> set[str]:
        return {type(decode_to_agent(raw.decode())).__name__ for agent in self.good for raw in agent.socket.told}


@asynccontextmanager
async def a_crowd(engine: AsyncEngine, seed: int) -> AsyncIterator[Crowd]:
    """An inbox that runs; its failure is the test's. Nobody reads along, so Redis is not asked."""
    inbox = Inbox(engine, Redis(), time.monotonic, lambda _: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(inbox.run())
        yield Crowd(inbox, random.Random(seed))
        running.cancel()


async def owners(engine: AsyncEngine) -> set[tuple[str, str]]:
    """Which VM's messages stand under which environment, run or team."""
    async with engine.connect() as db:
        rows = await db.execute(
            text(
                "SELECT vm_id, environment_id FROM log_chunks UNION SELECT vm_id, replace(run_id, 'run', 'env') "
                "FROM log_chunks UNION SELECT vm_id, team_id FROM agent_events"
            )
        )
        return {(row[0], row[1]) for row in rows}


async def steps_of(engine: AsyncEngine) -> set[tuple[str, str]]:
    async with engine.connect() as db:
        rows = await db.execute(text("SELECT environment_id, replace(run_id, 'run', 'env') FROM steps"))
        return {(row[0], row[1]) for row in rows}


async def check_that_only_the_hostile_suffer(engine: AsyncEngine, frames: int, seed: int) -> None:
    ledger = Ledger(engine)
    await ledger.refuse_lines(POISON)

    async with a_crowd(engine, seed) as crowd:
        await crowd.speak(frames)

    assert [await ledger.said(agent.vm.vm_id) for agent in crowd.good] == [
        [("deploy", "".join(agent.said))] for agent in crowd.good
    ]
    assert [agent.session.acked_seq for agent in crowd.good] == [agent.seq for agent in crowd.good]
    assert crowd.told_the_good() == {"Ack"}
    vms = {agent.vm.vm_id for agent in crowd.good + crowd.hostile}
    assert await owners(engine) == {(vm_id, f"env-of-{vm_id}") for vm_id in vms} | {
        (agent.vm.vm_id, "team") for agent in crowd.hostile
    }
    assert await steps_of(engine) <= {(f"env-of-{vm_id}", f"env-of-{vm_id}") for vm_id in vms}


async def test_ten_thousand_hostile_messages_cost_no_other_agent_a_line(engine: AsyncEngine) -> None:
    await check_that_only_the_hostile_suffer(engine, 10_000, seed=20261126)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_hundred_thousand_hostile_messages_cost_no_other_agent_a_line(engine: AsyncEngine) -> None:
    await check_that_only_the_hostile_suffer(engine, 100_000, seed=5)


async def test_a_message_that_is_refused_by_the_database_is_the_end_of_its_own_session_only(
    engine: AsyncEngine,
) -> None:
    await Ledger(engine).refuse_lines(POISON)
    async with a_crowd(engine, seed=1) as crowd:
        bad, good = crowd.hostile[0], crowd.good[0]

        receive(crowd.inbox, bad.session, encode(Log(1, "", "deploy", POISON)).encode())
        receive(crowd.inbox, good.session, encode(Log(1, "", "deploy", "fine\n")).encode())
        async with asyncio.timeout(STORED_WITHIN_S):
            await crowd.inbox.idle.wait()

    refused = decode_to_agent(bad.socket.told[0].decode())
    assert isinstance(refused, Refused)
    assert (refused.code, bad.session.acked_seq, good.session.acked_seq) == ("store_refused", 0, 1)


async def test_two_sessions_of_one_vm_with_equal_numbers_store_each_number_once(engine: AsyncEngine) -> None:
    async with a_crowd(engine, seed=1) as crowd:
        agent = crowd.good[0]
        replaced, _ = opened(agent.vm)

        for session in (replaced, agent.session):
            receive(crowd.inbox, session, encode(Log(1, "", "deploy", "once\n")).encode())
            receive(crowd.inbox, session, encode(Result(2, "unknown", a_message(Result, crowd.rng).outcome)).encode())
        async with asyncio.timeout(STORED_WITHIN_S):
            await crowd.inbox.idle.wait()

    assert await Ledger(engine).chunks("good-0") == [(1, "deploy", b"once\n")]
    assert await Ledger(engine).events("good-0") == [(2, "stray")]
    assert (replaced.acked_seq, agent.session.acked_seq) == (2, 2)
