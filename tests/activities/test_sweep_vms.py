"""The reaper's look at VMs: what it calls an orphan, and above all what it does not."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from activities.sweep_vms import CloudSweeps, LedgerSweeps
from providers.errors import CredentialsRejected
from stagely.db.tables import vms
from tests.activities.yard import AT_ONCE, HOUR_S, THEIRS, Yard, ago, new_sweep
from workflows.sweeps import AccountSweep, DoomedVm, Findings, Leftover, Sweep, SweepInput

ORPHAN, VANISHED = Leftover.ORPHAN, Leftover.VANISHED
UNLEASED, EXPIRED, SILENT = Leftover.UNLEASED, Leftover.EXPIRED, Leftover.SILENT


async def survey(yard: Yard, sweep: Sweep | None = None) -> Findings:
    """One sweep's look into the cloud."""
    sweeps = CloudSweeps(yard.engine, lambda name: yard.provider())
    return await ActivityEnvironment().run(sweeps.survey_account, AccountSweep(sweep or new_sweep(), "fake"))


async def ledger(yard: Yard, sweep: Sweep | None = None) -> Findings:
    """One sweep's look into the ledger."""
    return await ActivityEnvironment().run(LedgerSweeps(yard.engine, yard.client).survey_ledger, sweep or new_sweep())


# --- in the cloud, not in the ledger


async def test_vm_without_a_row_is_doomed_at_the_second_sight(yard: Yard) -> None:
    vm_id = await yard.machine()

    first, second = await survey(yard), await survey(yard)

    assert (first.seen[ORPHAN], first.doomed) == (1, ())
    assert second.doomed == (DoomedVm(vm_id, ORPHAN, "fake"),)


async def test_vm_whose_row_is_gone_is_an_orphan(yard: Yard) -> None:
    vm_id = await yard.machine()
    await yard.row(await yard.environment(), id=vm_id, state="gone", gone_at=ago(HOUR_S))
    await survey(yard)

    assert (await survey(yard)).doomed == (DoomedVm(vm_id, ORPHAN, "fake"),)


async def test_vm_with_a_living_row_is_no_orphan(yard: Yard) -> None:
    await yard.healthy(await yard.environment())
    await survey(yard)

    assert (await survey(yard)).seen == {ORPHAN: 0, VANISHED: 0}


async def test_vm_that_was_just_made_is_not_looked_at(yard: Yard) -> None:
    yard.cloud.rejuvenate(await yard.machine(), age_s=60)
    await survey(yard)

    assert (await survey(yard)).seen[ORPHAN] == 0


async def test_vm_of_another_installation_is_not_seen(yard: Yard) -> None:
    await yard.machine(installation=THEIRS)
    await survey(yard)

    assert (await survey(yard)).seen[ORPHAN] == 0


async def test_one_sweep_that_does_not_see_it_starts_the_count_anew(yard: Yard) -> None:
    vm_id = await yard.machine()
    await survey(yard)
    await yard.row(await yard.environment(), id=vm_id)
    await survey(yard)
    await yard.change(vms, vm_id, state="gone")

    assert (await survey(yard)).doomed == ()


async def test_retry_within_a_sweep_is_not_a_second_sight(yard: Yard) -> None:
    await yard.machine()
    sweep = new_sweep()
    await survey(yard, sweep)

    assert (await survey(yard, sweep)).doomed == ()


async def test_two_sweeps_in_a_row_by_hand_are_one_look(yard: Yard) -> None:
    await yard.machine()
    await survey(yard, new_sweep(SweepInput()))

    again = await survey(yard, new_sweep(SweepInput()))

    assert (again.seen[ORPHAN], again.due[ORPHAN]) == (1, 0)


async def test_no_more_of_a_kind_are_named_than_the_ceiling_allows(yard: Yard) -> None:
    for _ in range(4):
        await yard.machine()
    await survey(yard)

    found = await survey(yard, new_sweep(ceiling=3))

    assert (found.due[ORPHAN], len(found.doomed)) == (4, 3)


async def test_cloud_that_is_away_neither_adds_nor_forgets_a_sighting(yard: Yard) -> None:
    vm_id = await yard.machine()
    await survey(yard)
    away = Yard(yard.engine, yard.redis, yard.client, type(yard.cloud)(), yard.pulls)
    away.cloud.revoke_key()
    with pytest.raises(CredentialsRejected):
        await survey(away)

    assert [vm.vm_id for vm in (await survey(yard)).doomed] == [vm_id]


# --- in the ledger, not in the cloud


async def test_vm_that_somebody_removed_in_the_cloud_is_vanished(yard: Yard) -> None:
    vm_id = await yard.row(await yard.environment(), owner_workflow_id="env/p/pr/1")
    await survey(yard)

    assert (await survey(yard)).doomed == (DoomedVm(vm_id, VANISHED, "fake", "env/p/pr/1"),)


async def test_list_that_forgets_a_vm_does_not_make_it_vanish(yard: Yard) -> None:
    yard.cloud.lag_list(2)
    await yard.row(await yard.environment(), id=await yard.machine())

    forgotten = [await survey(yard), await survey(yard)]

    assert [look.seen[VANISHED] for look in forgotten] == [0, 0]


async def test_vm_that_is_being_created_has_not_vanished(yard: Yard) -> None:
    await yard.row(await yard.environment(), state="creating", running_at=None, online_at=None, last_seen_at=None)
    await survey(yard)

    assert (await survey(yard)).seen[VANISHED] == 0


async def test_vm_that_has_just_begun_to_run_has_not_vanished(yard: Yard) -> None:
    await yard.row(await yard.environment(), running_at=ago(60))
    await survey(yard)

    assert (await survey(yard)).seen[VANISHED] == 0


async def test_vm_that_is_being_destroyed_has_not_vanished(yard: Yard) -> None:
    await yard.row(await yard.environment(), state="destroying")
    await survey(yard)

    assert (await survey(yard)).seen[VANISHED] == 0


async def test_row_of_another_cloud_has_not_vanished_from_this_one(yard: Yard) -> None:
    await yard.row(await yard.environment(), provider="another")
    await survey(yard)

    assert (await survey(yard)).seen[VANISHED] == 0


# --- in the ledger, without a lease


async def test_vm_whose_lease_was_terminated_is_doomed_at_the_second_sight(yard: Yard) -> None:
    vm_id = await yard.healthy(await yard.environment(), owner_workflow_id="run/1")
    await yard.end(f"vm/{vm_id}")

    first, second = await ledger(yard), await ledger(yard)

    assert (first.seen[UNLEASED], first.doomed) == (1, ())
    assert second.doomed == (DoomedVm(vm_id, UNLEASED, "fake", "run/1"),)


async def test_row_whose_lease_never_ran_is_unleased_even_while_it_says_creating(yard: Yard) -> None:
    await yard.row(await yard.environment(), state="creating", running_at=None)
    await ledger(yard)

    assert (await ledger(yard)).due[UNLEASED] == 1


async def test_vm_under_a_running_lease_is_left_alone_while_it_is_created(yard: Yard) -> None:
    never = {"running_at": None, "online_at": None, "last_seen_at": None}
    vm_id = await yard.row(await yard.environment(), state="creating", **never)
    await yard.run(f"vm/{vm_id}")
    await yard.gateway(up_s=HOUR_S)
    await ledger(yard)

    assert (await ledger(yard)).seen == {UNLEASED: 0, EXPIRED: 0, SILENT: 0}


async def test_young_row_is_not_looked_at(yard: Yard) -> None:
    await yard.row(await yard.environment(), created_at=ago(60))
    await ledger(yard)

    assert (await ledger(yard)).seen[UNLEASED] == 0


async def test_row_that_is_gone_needs_no_lease(yard: Yard) -> None:
    await yard.row(await yard.environment(), state="gone", gone_at=ago(HOUR_S))
    await ledger(yard)

    assert (await ledger(yard)).seen[UNLEASED] == 0


# --- past the deadline


async def test_vm_past_its_deadline_and_the_grace_is_expired(yard: Yard) -> None:
    vm_id = await yard.healthy(await yard.environment(), expires_at=ago(AT_ONCE.expiry_grace_s + 60))
    await ledger(yard)

    assert [(vm.vm_id, vm.kind) for vm in (await ledger(yard)).doomed] == [(vm_id, EXPIRED)]


async def test_vm_just_past_its_deadline_is_still_its_leases_affair(yard: Yard) -> None:
    await yard.healthy(await yard.environment(), expires_at=ago(60))
    await ledger(yard)

    assert (await ledger(yard)).seen[EXPIRED] == 0


# --- silent


async def test_vm_whose_agent_says_nothing_is_silent_when_a_gateway_would_have_heard_it(yard: Yard) -> None:
    vm_id = await yard.healthy(await yard.environment(), last_seen_at=ago(1000))
    await yard.gateway(up_s=HOUR_S)
    await ledger(yard)

    assert [(vm.vm_id, vm.kind) for vm in (await ledger(yard)).doomed] == [(vm_id, SILENT)]


async def test_agent_that_never_spoke_is_silent_since_its_vm_runs(yard: Yard) -> None:
    await yard.healthy(await yard.environment(), online_at=None, last_seen_at=None)
    await yard.gateway(up_s=HOUR_S)

    assert (await ledger(yard)).seen[SILENT] == 1


@pytest.mark.parametrize(("up_s", "beat_ago_s"), [(600, 1), (HOUR_S, 120)], ids=["new", "away"])
async def test_nobody_is_silent_while_no_gateway_could_have_heard_them(
    yard: Yard, up_s: float, beat_ago_s: float
) -> None:
    await yard.healthy(await yard.environment(), last_seen_at=ago(1000))
    await yard.gateway(up_s, beat_ago_s)

    found = await ledger(yard)

    assert found.seen[SILENT] == 0
    assert found.notes == ("1 VMs are silent, but no gateway has listened for 900 s: holding still",)


async def test_gateway_that_goes_away_makes_the_count_start_anew(yard: Yard) -> None:
    await yard.healthy(await yard.environment(), last_seen_at=ago(1000))
    await ledger(yard)
    await yard.gateway(up_s=HOUR_S)

    assert (await ledger(yard)).due[SILENT] == 0


async def test_vm_that_was_heard_lately_is_not_silent(yard: Yard) -> None:
    await yard.healthy(await yard.environment(), last_seen_at=ago(600))
    await yard.gateway(up_s=HOUR_S)

    assert (await ledger(yard)).seen[SILENT] == 0
