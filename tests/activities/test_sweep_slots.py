"""Build slots that nobody gave back, and how much one sweep may do."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sweeps import SweepActivities
from tests.activities.yard import AT_ONCE, HOUR_S, Yard, ago, new_sweep
from workflows.sweeps import Findings, Leftover, Sweep, SweepInput, SweepStart

SLOT = Leftover.SLOT


async def sweep_slots(yard: Yard, sweep: Sweep | None = None) -> Findings:
    return await ActivityEnvironment().run(SweepActivities(yard.engine, yard.client).sweep_slots, sweep or new_sweep())


async def begun(yard: Yard, order: SweepInput = AT_ONCE) -> Sweep:
    activities = SweepActivities(yard.engine, yard.client)
    return await ActivityEnvironment().run(activities.begin_sweep, SweepStart("sweep-1", order))


@pytest.mark.parametrize(("job", "run"), [("completed", "running"), ("cancelled", "running"), ("pending", "failed")])
async def test_slot_of_an_ended_job_or_run_is_freed_at_the_second_sight(yard: Yard, job: str, run: str) -> None:
    build_id = await yard.slot(await yard.environment(), job, run)
    await yard.run(f"run/run-{build_id}")

    first = await sweep_slots(yard)
    assert (first.seen, first.acted, await yard.slots()) == ({SLOT: 1}, {SLOT: 0}, [build_id])

    assert (await sweep_slots(yard)).acted == {SLOT: 1}
    assert await yard.slots() == []


async def test_slot_of_a_pipeline_that_was_terminated_is_freed(yard: Yard) -> None:
    build_id = await yard.slot(await yard.environment())
    await yard.run(f"run/run-{build_id}")
    await yard.end(f"run/run-{build_id}")
    await sweep_slots(yard)
    await sweep_slots(yard)

    assert await yard.slots() == []


async def test_slot_whose_every_vm_has_long_been_gone_is_freed(yard: Yard) -> None:
    environment_id = await yard.environment()
    build_id = await yard.slot(environment_id)
    await yard.run(f"run/run-{build_id}")
    await yard.row(environment_id, build_id=build_id, state="gone", gone_at=ago(HOUR_S))
    await sweep_slots(yard)
    await sweep_slots(yard)

    assert await yard.slots() == []


async def test_slot_of_a_build_that_runs_again_on_another_vm_is_kept(yard: Yard) -> None:
    environment_id = await yard.environment()
    build_id = await yard.slot(environment_id)
    await yard.run(f"run/run-{build_id}")
    await yard.row(environment_id, build_id=build_id, state="gone", gone_at=ago(HOUR_S))
    await yard.row(environment_id, build_id=build_id, state="creating")
    await sweep_slots(yard)
    await sweep_slots(yard)

    assert await yard.slots() == [build_id]


async def test_slot_of_a_gone_environment_is_freed(yard: Yard) -> None:
    build_id = await yard.slot(await yard.environment(status="terminated"))
    await yard.run(f"run/run-{build_id}")
    await sweep_slots(yard)
    await sweep_slots(yard)

    assert await yard.slots() == []


async def test_slot_that_was_given_a_moment_ago_is_not_looked_at(yard: Yard) -> None:
    build_id = await yard.slot(await yard.environment(), age_s=60)
    await sweep_slots(yard)

    assert (await sweep_slots(yard)).seen == {SLOT: 0}
    assert await yard.slots() == [build_id]


async def test_dry_run_frees_nothing(yard: Yard) -> None:
    build_id = await yard.slot(await yard.environment())
    await sweep_slots(yard)

    dry = new_sweep(SweepInput(apart_s=0.0, is_dry_run=True))
    assert (await sweep_slots(yard, dry)).due == {SLOT: 1}
    assert await yard.slots() == [build_id]


async def test_sweep_goes_into_every_cloud_that_ledger_or_projects_name(yard: Yard) -> None:
    await yard.row(await yard.environment(), provider="left-long-ago", state="gone")

    assert (await begun(yard)).providers == ("fake", "left-long-ago")


async def test_small_installation_may_lose_five_vms_in_one_sweep(yard: Yard) -> None:
    assert (await begun(yard)).ceiling == 5


async def test_large_installation_may_lose_a_tenth_of_its_living_vms(yard: Yard) -> None:
    environment_id = await yard.environment()
    for _ in range(20):
        await yard.row(environment_id)
    await yard.row(environment_id, state="gone")

    assert (await begun(yard, SweepInput(ceiling=1))).ceiling == 2
