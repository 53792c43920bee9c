"""What the intake promises about repeats, refusals and connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.clients import DATABASE_ERRORS, is_database_away
from stagely.db.queries.intake import Intake, NewChunk, NewEvent, StoredBefore
from tests.api.ledger import Ledger
from tests.api.world import eventually

SECRET = b"secret line\n"


@pytest.fixture
async def intake(engine: AsyncEngine) -> AsyncIterator[Intake]:
    made = Intake(engine)
    yield made
    await made.close()


def chunk(first_seq: int, seq: int, data: bytes = b"line\n", vm_id: str = "vm-1") -> NewChunk:
    return NewChunk(vm_id, "boot-1", first_seq, seq, "env-1", "run-1", "deploy", 0, data)


def event(seq: int) -> NewEvent:
    return NewEvent("vm-1", "boot-1", seq, "team", "status", "", "{}")


async def break_connections(engine: AsyncEngine) -> None:
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    async with engine.connect() as db:
        await db.execute(text(f"{others} AND pid <> pg_backend_pid()"))


async def store_when_there(intake: Intake, one: NewChunk) -> None:
    """As the inbox does: again while the database is away."""
    try:
        await intake.store([one], [], {})
    except DATABASE_ERRORS as error:
        if not is_database_away(error):
            raise
        await intake.store([one], [], {})


@pytest.mark.parametrize("first_seq", [1, 2, 3])
async def test_chunk_that_begins_in_a_stored_one_is_refused_with_all_of_its_batch(
    engine: AsyncEngine, intake: Intake, first_seq: int
) -> None:
    await intake.store([chunk(1, 3)], [event(4)], {})

    with pytest.raises(StoredBefore) as caught:
        await intake.store([chunk(1, 1, vm_id="vm-2"), chunk(first_seq, 6)], [event(5)], {})

    assert caught.value.seqs == {("vm-1", "boot-1"): 4, ("vm-2", "boot-1"): 0}
    assert [seq for seq, _, _ in await Ledger(engine).chunks("vm-1")] == [3]
    assert await Ledger(engine).chunks("vm-2") == []
    assert await Ledger(engine).events("vm-1") == [(4, "status")]


async def test_chunk_behind_the_stored_ones_is_kept(engine: AsyncEngine, intake: Intake) -> None:
    await intake.store([chunk(1, 3)], [], {})
    await intake.store([chunk(4, 4), chunk(5, 9)], [], {})

    assert [seq for seq, _, _ in await Ledger(engine).chunks("vm-1")] == [3, 4, 9]


async def test_two_intakes_with_the_same_chunk_keep_it_once(engine: AsyncEngine, intake: Intake) -> None:
    ledger, other = Ledger(engine), Intake(engine)

    async def refused(one: Intake) -> bool:
        try:
            await one.store([chunk(1, 3)], [], {})
        except StoredBefore:
            return True
        return False

    async def both_wait() -> bool:
        return await ledger.waiting_for_the_inbox() == 2

    async with asyncio.TaskGroup() as group, ledger.inbox_held():
        ends = [group.create_task(refused(one)) for one in (intake, other)]
        await eventually(both_wait)
    await other.close()

    assert sorted(end.result() for end in ends) == [False, True]
    assert [seq for seq, _, _ in await ledger.chunks("vm-1")] == [3]


async def test_value_that_no_column_holds_is_refused_without_being_quoted(engine: AsyncEngine, intake: Intake) -> None:
    with pytest.raises(asyncpg.DataError) as caught:
        await intake.store([chunk(1, 2**31, SECRET)], [], {})
    await intake.store([chunk(1, 1)], [], {})

    assert not is_database_away(caught.value)
    assert str(2**31) not in str(caught.value)
    assert [seq for seq, _, _ in await Ledger(engine).chunks("vm-1")] == [1]


async def test_row_that_postgres_refuses_leaves_the_intake_as_it_was(engine: AsyncEngine, intake: Intake) -> None:
    await Ledger(engine).refuse_lines("secret")

    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await intake.store([chunk(1, 1, SECRET)], [event(2)], {})
    await intake.store([chunk(1, 1)], [], {})

    assert not is_database_away(caught.value)
    assert [seq for seq, _, _ in await Ledger(engine).chunks("vm-1")] == [1]
    assert await Ledger(engine).events("vm-1") == []


async def test_connection_that_broke_is_replaced(engine: AsyncEngine, intake: Intake) -> None:
    await intake.store([chunk(1, 1)], [], {})

    await break_connections(engine)
    await store_when_there(intake, chunk(2, 2))
    await break_connections(engine)
    await asyncio.sleep(0)
    await store_when_there(intake, chunk(3, 3))
    await break_connections(engine)
    async with engine.connect():  # Time enough to notice.
        await store_when_there(intake, chunk(4, 4))

    assert [seq for seq, _, _ in await Ledger(engine).chunks("vm-1")] == [1, 2, 3, 4]


async def test_cancelled_batch_leaves_no_transaction_behind(engine: AsyncEngine, intake: Intake) -> None:
    ledger = Ledger(engine)

    async with asyncio.TaskGroup() as group, ledger.inbox_held():
        waiting = group.create_task(intake.store([chunk(1, 1)], [], {}))
        await eventually(ledger.is_inbox_waited_for)
        waiting.cancel()
        await asyncio.wait([waiting])
    await intake.store([chunk(1, 2)], [], {})

    assert [seq for seq, _, _ in await ledger.chunks("vm-1")] == [2]
