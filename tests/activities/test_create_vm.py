"""Creating while the order is taken back: what a cloud was asked for is known before anything else happens."""

from __future__ import annotations

import asyncio

import pytest

from activities.vms import VmActivities
from providers.base import Vm, VmOrder
from stagely.states import VmRole
from tests.activities.yard import Yard
from tests.fakes.cloud import FakeCloud, FakeCloudProvider
from workflows.messages import VmLeaseInput


class SlowProvider(FakeCloudProvider):
    """Makes the VM when it is let to, but not for a caller that hung up."""

    def __init__(self, cloud: FakeCloud) -> None:
        super().__init__(cloud, "ours")
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def create(self, order: VmOrder) -> Vm:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().create(order)


async def test_cancelled_creation_ends_only_with_the_clouds_answer(yard: Yard) -> None:
    provider = SlowProvider(yard.cloud)
    activities = VmActivities(yard.engine, lambda name: provider, lambda order, at: "#cloud-config\n", "ours")
    order = VmLeaseInput(
        vm_id="vm-taken-back", role=VmRole.PREVIEW, project_id=yard.project_id,
        environment_id=await yard.environment(), owner_workflow_id="nobody", provider="fake", expires_in_s=60,
        create_limit_s=60,
    )  # fmt: skip
    creation = asyncio.ensure_future(activities.create_vm(order))
    await provider.is_asked.wait()

    creation.cancel()
    await asyncio.sleep(0)
    assert not creation.done()
    provider.may_answer.set()

    with pytest.raises(asyncio.CancelledError):
        await creation
    assert yard.cloud.names() == ["stg-vm-taken-back"]
