"""`reopened` in the very moment in which the environment ends: it is never lost."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import pytest

from tests.faults.conftest import Note
from tests.faults.stage import NO_BUILDS, TERMINATED, Stage
from tests.workflows.world import POLL_S

SEED = 20261124
SPREAD_S = 0.15  # Around the moment of completion: some come before it, some after.
AT_ONCE = 4


@dataclass(slots=True)
class Tries:
    """`same_run`: the workflow that was ending went on; otherwise a new one began."""

    lost: list[str] = field(default_factory=list)
    same_run: int = 0
    new_run: int = 0


async def reopen_at_completion(here: Stage, tries: int) -> Tries:
    """Close and reopen, `tries` times in all, in AT_ONCE pull requests."""
    found = Tries()

    async def work(pr: int) -> None:
        chance = random.Random(f"{SEED}/{pr}")
        sha = here.github.push(pr, NO_BUILDS)
        await here.world.webhook(pr, "opened")
        await here.until_ready(pr, sha)
        teardown_s = await _teardown(here, pr)
        for _ in range(tries // AT_ONCE):
            await _try(here, pr, max(0.0, teardown_s + chance.uniform(-SPREAD_S, SPREAD_S)), found)
        here.github.close(pr)
        await here.world.webhook(pr, "closed")
        await here.until_gone(pr)

    async with asyncio.TaskGroup() as group:
        for pr in range(1, AT_ONCE + 1):
            group.create_task(work(pr))
    return found


async def _teardown(here: Stage, pr: int) -> float:
    """Seconds from `closed` to the end; the pull request is open again afterwards."""
    began = time.monotonic()
    here.github.close(pr)
    await here.world.webhook(pr, "closed")
    await here.world.handle(pr).result()
    took = time.monotonic() - began
    await _reopen(here, pr)
    return took


async def _try(here: Stage, pr: int, delay_s: float, found: Tries) -> None:
    before = (await here.world.handle(pr).describe()).run_id
    here.github.close(pr)
    await here.world.webhook(pr, "closed")
    await asyncio.sleep(delay_s)
    try:
        await _reopen(here, pr)
    except (AssertionError, TimeoutError) as error:
        found.lost.append(f"{delay_s:.3f} s after closed: {error}")
    is_same = (await here.world.handle(pr).describe()).run_id == before
    found.same_run += is_same
    found.new_run += not is_same


async def _reopen(here: Stage, pr: int) -> None:
    here.github.reopen(pr)
    await here.world.webhook(pr, "reopened")
    await here.settled(pr, is_open=True)


async def test_reopened_at_the_moment_of_completion_is_never_lost_in_sixteen_tries(here: Stage) -> None:
    found = await reopen_at_completion(here, 16)

    assert found.lost == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_reopened_at_the_moment_of_completion_is_never_lost_in_200_tries(here: Stage, note: Note) -> None:
    found = await reopen_at_completion(here, 200)

    note("reopened at completion", "tries", found.same_run + found.new_run, "tries")
    note("reopened at completion", "same_run", found.same_run, "tries")
    note("reopened at completion", "lost", len(found.lost), "tries")
    note("reopened at completion", "leaked_vms", len(here.world.cloud.alive), "VMs")
    assert found.lost == []
    assert found.same_run > 0
    assert found.new_run > 0


async def test_reopened_while_the_machine_is_being_destroyed_gets_a_machine_again(here: Stage) -> None:
    sha = here.github.push(1)
    await here.world.webhook(1, "opened")
    await here.until_ready(1, sha)
    here.world.cloud.refuse_destroys = 1  # One more round of retries: time to reopen in.
    here.github.close(1)
    await here.world.webhook(1, "closed")
    await here.world.until_true(lambda: here.world.cloud.refuse_destroys == 0)

    await _reopen(here, 1)

    life = await here.world.newest(1)
    assert life is not None
    assert life.state is not TERMINATED
    assert life.sha == sha
    await asyncio.sleep(POLL_S)
