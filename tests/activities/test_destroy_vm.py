"""Destroying by id: with a ledger row, without one, and where the row says less than the cloud."""

from __future__ import annotations

from temporalio.testing import ActivityEnvironment

from activities.vms import VmActivities
from tests.activities.yard import THEIRS, Yard, ago
from tests.fakes.cloud import FakeCloud, FakeCloudProvider
from workflows.orders import VmRef


async def destroy(yard: Yard, ref: VmRef, another: FakeCloud | None = None) -> None:
    """`another`: the cloud of that name."""
    clouds = {"fake": yard.provider(), "another": FakeCloudProvider(another or FakeCloud(), "ours")}
    activities = VmActivities(yard.engine, lambda name: clouds[name], lambda order, at: "", "ours")
    await ActivityEnvironment().run(activities.destroy_vm, ref)


async def test_vm_without_a_row_is_destroyed_where_its_cloud_is_named(yard: Yard) -> None:
    vm_id = await yard.machine()

    await destroy(yard, VmRef(vm_id, "fake"))

    assert yard.cloud.names() == []


async def test_vm_without_a_row_and_without_a_cloud_was_never_ordered(yard: Yard) -> None:
    vm_id = await yard.machine()

    await destroy(yard, VmRef(vm_id))

    assert yard.cloud.names() == [f"stg-{vm_id}"]


async def test_vm_of_another_installation_survives_its_name(yard: Yard) -> None:
    vm_id = await yard.machine(installation=THEIRS)

    await destroy(yard, VmRef(vm_id, "fake"))

    assert yard.cloud.names() == [f"stg-{vm_id}"]


async def test_vm_is_destroyed_in_the_cloud_that_lists_it_though_its_row_names_another(yard: Yard) -> None:
    another = FakeCloud()
    vm_id = await yard.machine()
    await yard.row(await yard.environment(), id=vm_id, provider="another", state="gone", gone_at=ago(60))

    await destroy(yard, VmRef(vm_id, "fake"), another)

    assert yard.cloud.names() == []


async def test_row_is_closed_when_its_vm_is_proven_gone(yard: Yard) -> None:
    vm_id = await yard.healthy(await yard.environment())

    await destroy(yard, VmRef(vm_id, "fake"))

    assert (yard.cloud.names(), await yard.state(vm_id)) == ([], "gone")
