"""An agent whose line breaks all the time, between two gateways that do not know each other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import AgentState, Log, Status
from api.gateway.inbox import Inbox, Received
from api.gateway.session import Numbered, Session
from api.gateway.websocket import AgentSocket
from stagely.db.queries.agents import EnrolledVm
from tests.api.ledger import Ledger

HOPS = 60
HOPPING = EnrolledVm(
    vm_id="vm-1", team_id="team", project_id="prj", environment_id="env-1", run_id="run-1", role="builder",
    owner_workflow_id="run/1", repo_full_name="local/guestbook", boot_id="boot-1", acked_seq=0,
)  # fmt: skip
STEADY = replace(HOPPING, vm_id="vm-2")


class Deaf:
    """Stands for AgentSocket. The agent never hears an Ack, so it sends again whatever it may."""

    def send(self, frame: str) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def pause(self, reason: int) -> None: ...

    def resume(self, reason: int) -> None: ...


@asynccontextmanager
async def two_inboxes(engine: AsyncEngine) -> AsyncIterator[tuple[Inbox, Inbox]]:
    """Nobody reads along, so Redis is not asked."""
    inboxes = tuple(Inbox(engine, Redis(), time.monotonic, lambda _: None) for _ in range(2))
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(inbox.run()) for inbox in inboxes]
        yield inboxes[0], inboxes[1]
        for inbox in inboxes:
            await inbox.idle.wait()
        for task in running:
            task.cancel()


async def enrolled(engine: AsyncEngine) -> EnrolledVm:
    """As a HELLO finds it: perhaps before the last gateway has stored what it got."""
    query = (
        "SELECT greatest(0, (SELECT max(seq) FROM log_chunks WHERE vm_id = 'vm-1'), "
        "(SELECT max(seq) FROM agent_events WHERE vm_id = 'vm-1'))"
    )
    async with engine.connect() as db:
        return replace(HOPPING, acked_seq=(await db.execute(text(query))).scalar_one())


def message(seq: int) -> Numbered:
    """Every seventh is a step, and the streams change now and then."""
    if seq % 7 == 0:
        return Status(seq, "", AgentState.BUILDING, "build")
    return Log(seq, "", f"service/{seq // 10}", f"line {seq}\n" * (1 + seq % 40))


def said(last: int) -> str:
    return "".join(one.data for one in map(message, range(1, last + 1)) if isinstance(one, Log))


def opened(vm: EnrolledVm) -> Session:
    session = Session(cast("AgentSocket", Deaf()), time.monotonic())  # cast: a session only sends, closes and pauses.
    session.open(vm, time.monotonic())
    return session


def say(inbox: Inbox, session: Session, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        if session.take(message(seq), 100):
            inbox.put(Received(session, message(seq), 100))


@pytest.mark.parametrize("seed", [1, 2])
async def test_agents_between_two_gateways_are_stored_once_and_in_order(engine: AsyncEngine, seed: int) -> None:
    chance, ledger, last = random.Random(seed), Ledger(engine), 0
    steady = opened(STEADY)
    async with two_inboxes(engine) as inboxes:
        for hop in range(HOPS):
            vm = await enrolled(engine)
            last = max(last, vm.acked_seq + chance.randrange(1, 40))
            say(inboxes[0], steady, hop + 1, hop + 1)
            say(inboxes[hop % 2], opened(vm), vm.acked_seq + 1, last)
            await asyncio.sleep(chance.choice([0, 0.01, 0.06]))

    chunks = await ledger.chunks("vm-1")
    assert "".join(data.decode() for _, _, data in chunks) == said(last)
    assert "".join(data.decode() for _, _, data in await ledger.chunks("vm-2")) == said(HOPS)
    assert [seq for seq, _ in await ledger.events("vm-1")] == list(range(7, last + 1, 7))
    assert len(chunks) < last / 2
