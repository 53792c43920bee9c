"""What of the heartbeats reaches Postgres and Redis, and when."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from agent.protocol import AgentState, Heartbeat, Service, encode
from api.clients import DATABASE_ERRORS
from api.gateway.beats import GATHERING_S, SETTLED_S, SHOW_AGAIN_S, Beats
from api.gateway.session import Session
from api.gateway.turns import Turns
from api.gateway.websocket import AgentSocket
from edge.routes import Route, RouteStatus
from stagely import routing
from stagely.db.queries.agents import EnrolledVm
from tests.api.ledger import HASH, Ledger
from tests.api.rfc6455.stand_in import Echo
from tests.api.world import eventually

UP = Heartbeat(AgentState.HEALTHY, (Service("web", "running", "healthy"),))
DOWN = dataclasses.replace(UP, services=(Service("web", "exited", "", 1),))
VM = EnrolledVm("vm-1", "local", "prj-1", "env-1", "run-1", "preview", "vm/vm-1", "local/guestbook", "boot-1", 0)


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session(ledger: Ledger) -> Session:
    """An open one of env-1's preview."""
    await ledger.add_vm("vm-1", role="preview", state="running")
    await change(ledger, "UPDATE environments SET vm_id = 'vm-1' WHERE id = 'env-1'")
    made = Session(AgentSocket(Echo(), Turns()), 1000.0)
    made.open(VM, 1000.0)
    return made


async def change(ledger: Ledger, statement: str) -> None:
    async with ledger.engine.begin() as db:
        await db.execute(text(statement))


def hear(beats: Beats, session: Session, heartbeat: Heartbeat) -> bool:
    """As the gateway does with a frame; whether it had to be decoded."""
    text = encode(heartbeat)
    if beats.is_known(session, text):
        return False
    beats.put(session, heartbeat, text)
    return True


async def shown(ledger: Ledger) -> list[str]:
    return [service["status"] for service in (await ledger.environment()).services]


async def test_news_is_written_at_the_next_turn(ledger: Ledger, redis: Redis, session: Session) -> None:
    beats = Beats(ledger.engine, redis, Time(), 30)
    hear(beats, session, UP)
    await beats.write()

    hear(beats, session, DOWN)
    await beats.write()

    assert await shown(ledger) == ["exited"]


async def test_only_the_newest_of_several_heartbeats_is_written(ledger: Ledger, redis: Redis, session: Session) -> None:
    beats = Beats(ledger.engine, redis, Time(), 30)

    hear(beats, session, DOWN)
    hear(beats, session, UP)
    await beats.write()

    assert await shown(ledger) == ["running"]


async def test_what_was_shown_last_is_news_again_behind_news_that_was_not_written(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    beats = Beats(ledger.engine, redis, Time(), 30)
    hear(beats, session, UP)
    await beats.write()

    hear(beats, session, DOWN)  # And the database is away for a while.
    hear(beats, session, UP)
    await beats.write()

    assert await shown(ledger) == ["running"]


async def test_of_two_sessions_of_one_vm_the_newer_ones_heartbeat_is_shown(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    beats = Beats(ledger.engine, redis, Time(), 30)
    newer = Session(AgentSocket(Echo(), Turns()), 1000.0)
    newer.open(VM, 1000.0)

    hear(beats, session, DOWN)
    hear(beats, newer, UP)
    await beats.write()

    assert await shown(ledger) == ["running"]


async def test_heartbeat_without_news_waits_for_others_and_leaves_the_services_alone(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    hear(beats, session, UP)
    await beats.write()
    await change(ledger, "UPDATE vms SET last_seen_at = NULL")
    await change(ledger, "UPDATE environments SET services = '[]'")

    hear(beats, session, UP)
    await beats.write()
    at_once = (await ledger.vm("vm-1")).last_seen_at
    clock.now += GATHERING_S
    await beats.write()

    assert at_once is None
    assert (await ledger.vm("vm-1")).last_seen_at is not None
    assert await shown(ledger) == []


async def test_what_somebody_else_wrote_meanwhile_is_put_right_after_a_while(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    await settle(beats, session, clock)
    await change(ledger, "UPDATE environments SET services = '[]'")

    await beat_after(SHOW_AGAIN_S - GATHERING_S, beats, session, clock)
    before = await shown(ledger)
    await beat_after(GATHERING_S, beats, session, clock)

    assert (before, await shown(ledger)) == ([], ["running"])


@pytest.mark.parametrize("between", [UP, DOWN], ids=["nothing-new", "news"])
async def test_what_a_workflow_wrote_behind_a_result_is_put_right_in_a_minute(
    ledger: Ledger, redis: Redis, session: Session, between: Heartbeat
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    hear(beats, session, UP)
    await beats.write()
    beats.expect_another_writer(session)
    clock.now += SETTLED_S / 2
    session.heard_at = clock.now
    hear(beats, session, between)
    await beats.write()
    await change(ledger, "UPDATE environments SET services = '[]'")

    clock.now += SETTLED_S / 2
    session.heard_at = clock.now
    decoded = [hear(beats, session, between)]
    await beats.write()
    clock.now += SETTLED_S
    session.heard_at = clock.now
    decoded.append(hear(beats, session, between))

    assert await shown(ledger) == [between.services[0].status]
    assert decoded == [True, False]


async def test_route_of_a_preview_that_never_changes_is_kept_alive(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    await settle(beats, session, clock)
    await routing.announce(redis, {HASH: Route(RouteStatus.READY, "guestbook", "local", 7, "env-1", "10.0.0.2", 9443)})

    async def is_refreshed() -> bool:
        return int(await redis.ttl(f"route:{HASH}")) > 3000

    async with asyncio.TaskGroup() as group:
        refreshing = group.create_task(beats.refreshes.run())
        await redis.expire(f"route:{HASH}", 10)
        await eventually(is_refreshed)  # By the heartbeats so far: what comes now is the later one's.
        await redis.expire(f"route:{HASH}", 10)
        await beat_after(SHOW_AGAIN_S, beats, session, clock)
        await eventually(is_refreshed)
        refreshing.cancel()


async def test_heartbeats_that_could_not_be_written_are_written_when_the_database_takes_them_again(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    beats = Beats(ledger.engine, redis, Time(), 30)
    hear(beats, session, UP)
    await change(ledger, "ALTER TABLE environments RENAME TO hidden")
    with pytest.raises(DATABASE_ERRORS):
        await beats.write()
    await change(ledger, "ALTER TABLE hidden RENAME TO environments")

    hear(beats, session, UP)
    await beats.write()

    assert await shown(ledger) == ["running"]


async def test_frame_that_differs_in_its_numbers_only_is_not_decoded_again(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    hear(beats, session, UP)
    await beats.write()
    session.heard_at = clock.now

    assert not hear(beats, session, dataclasses.replace(UP, disk_free_bytes=17, memory_free_bytes=4))
    assert hear(beats, session, dataclasses.replace(UP, state=AgentState.FAILED))
    assert hear(beats, session, DOWN)


@pytest.mark.parametrize(
    "tail",
    [
        '"memory_free_bytes":1,"memory_free_bytes":2}',
        '"memory_free_bytes":-1}',
        '"memory_free_bytes":1,"x":1}',
        "",
        "}",
    ],
)
async def test_frame_that_looks_like_the_last_one_and_is_damaged_is_decoded(
    ledger: Ledger, redis: Redis, session: Session, tail: str
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    hear(beats, session, UP)
    await beats.write()
    session.heard_at = clock.now
    head, _, _ = encode(UP).rpartition('"memory_free_bytes"')

    assert not beats.is_known(session, head + tail)


@pytest.mark.parametrize("quiet_s", [None, SHOW_AGAIN_S, SHOW_AGAIN_S - 1], ids=["first", "due", "nearly-due"])
async def test_result_just_before_a_heartbeat_that_is_written_is_still_settled_later(
    ledger: Ledger, redis: Redis, session: Session, quiet_s: float | None
) -> None:
    """A spool after a reconnect: the result, then the first heartbeat; and at the end of a quiet quarter of an hour."""
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    if quiet_s is not None:
        await settle(beats, session, clock)
        clock.now += quiet_s
    beats.expect_another_writer(session)
    await beat_after(1, beats, session, clock)
    await change(ledger, "UPDATE environments SET services = '[]'")  # The workflow, a moment later.

    await beat_after(SETTLED_S, beats, session, clock)

    assert await shown(ledger) == ["running"]


async def test_every_result_is_settled_a_minute_behind_it(ledger: Ledger, redis: Redis, session: Session) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    await beat_after(0, beats, session, clock)
    beats.expect_another_writer(session)
    clock.now += SETTLED_S - 1
    beats.expect_another_writer(session)
    await beat_after(1, beats, session, clock)
    await change(ledger, "UPDATE environments SET services = '[]'")

    await beat_after(SETTLED_S, beats, session, clock)

    assert await shown(ledger) == ["running"]


async def test_first_heartbeat_of_a_session_is_written_again_in_a_minute(
    ledger: Ledger, redis: Redis, session: Session
) -> None:
    clock = Time()
    beats = Beats(ledger.engine, redis, clock, 30)
    await beat_after(0, beats, session, clock)
    await change(ledger, "UPDATE environments SET services = '[]'")  # Behind a result that came on another line.

    await beat_after(SETTLED_S, beats, session, clock)

    assert await shown(ledger) == ["running"]


async def settle(beats: Beats, session: Session, clock: Time) -> None:
    """The first heartbeat, and the one a minute later that is written again: from now on nothing is expected."""
    await beat_after(0, beats, session, clock)
    await beat_after(SETTLED_S, beats, session, clock)


async def beat_after(wait_s: float, beats: Beats, session: Session, clock: Time) -> None:
    clock.now += wait_s
    session.heard_at = clock.now
    hear(beats, session, UP)
    await beats.write()
