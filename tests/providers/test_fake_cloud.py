"""The in-memory cloud keeps the contract, and misbehaves only as told."""

from __future__ import annotations

import pytest

from providers.base import PowerState, Provider
from providers.errors import CredentialsRejected, NoCapacity, ProviderUnavailable, QuotaExceeded
from tests.fakes.cloud import FakeCloud, FakeCloudProvider
from tests.providers.contract import ALPHA, ProviderContract, order, proven_gone


class FakeWorld:
    def __init__(self) -> None:
        self.cloud = FakeCloud()

    def provider(self, installation: str) -> Provider:
        return FakeCloudProvider(self.cloud, installation)

    def lose_next_create(self, *, after: bool) -> None:
        self.cloud.lose_reply("create", after=after)

    async def count(self, vm_id: str) -> int:
        return self.cloud.names().count(f"stg-{vm_id}")


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


class TestFakeCloud(ProviderContract):
    async def test_a_500_after_creating_is_adopted_by_the_retry(self, world: FakeWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        world.cloud.fail_once("create", after=True)

        with pytest.raises(ProviderUnavailable):
            await provider.create(wanted)
        await provider.create(wanted)

        assert await world.count(wanted.vm_id) == 1

    async def test_sold_out_and_a_full_account_are_told_apart(self, world: FakeWorld) -> None:
        provider = world.provider(ALPHA)
        world.cloud.sell_out("")
        with pytest.raises(NoCapacity):
            await provider.create(order())

        world.cloud.restock("")
        world.cloud.limit = 0
        with pytest.raises(QuotaExceeded):
            await provider.create(order())

    async def test_a_revoked_key_is_a_person_s_matter(self, world: FakeWorld) -> None:
        world.cloud.revoke_key()

        with pytest.raises(CredentialsRejected):
            await world.provider(ALPHA).list_owned()

    async def test_a_lagging_list_hides_a_vm_that_find_sees(self, world: FakeWorld) -> None:
        provider = world.provider(ALPHA)
        world.cloud.lag_list(1)
        wanted = order()
        await provider.create(wanted)

        assert [vm.vm_id for vm in await provider.list_owned()] == []
        assert await provider.find(wanted.vm_id) is not None
        assert [vm.vm_id for vm in await provider.list_owned()] == [wanted.vm_id]

    async def test_a_slow_delete_is_seen_dying_before_it_is_gone(self, world: FakeWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)
        world.cloud.lag_delete(2)

        await provider.destroy(wanted.vm_id)
        dying = await provider.find(wanted.vm_id)
        await proven_gone(provider, wanted.vm_id)

        assert dying is not None
        assert dying.power is PowerState.OFF

    async def test_the_journal_tells_what_reached_the_cloud(self, world: FakeWorld) -> None:
        provider = world.provider(ALPHA)
        world.cloud.lose_reply("create", after=False)
        with pytest.raises(ProviderUnavailable):
            await provider.create(order("vm-a"))

        await provider.create(order("vm-a"))
        await provider.destroy("vm-a")

        assert world.cloud.journal == ["create stg-vm-a", "get stg-vm-a", "delete stg-vm-a"]
