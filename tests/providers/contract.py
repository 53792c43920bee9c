"""What every provider promises, as tests. A provider's own test file subclasses ProviderContract and gives the world.

One `World` is one cloud account (or one Docker Engine) that two installations share.
"""

from __future__ import annotations

import asyncio
import platform
from typing import Protocol

import pytest

from providers.base import PowerState, Provider, VmOrder
from providers.errors import ProviderUnavailable
from stagely.ids import mint
from stagely.states import VmRole

GONE_LIMIT_S = 30.0
# Two installations on one account; new ones in each process, for an Engine may be shared by several runs.
ALPHA, BETA = mint("alpha"), mint("beta")


class World(Protocol):
    """One account. `count` is how many machines of this id really exist, asked past the provider."""

    def provider(self, installation: str) -> Provider: ...

    def lose_next_create(self, *, after: bool) -> None:
        """The next create gets no reply; `after` says whether the machine was made."""
        ...

    async def count(self, vm_id: str) -> int: ...


def order(vm_id: str = "", installation: str = ALPHA, role: VmRole = VmRole.PREVIEW) -> VmOrder:
    return VmOrder(
        vm_id=vm_id or mint("vm"),
        installation=installation,
        project_id="prj-1",
        environment_id="env-1",
        role=role,
        user_data="#cloud-config\n{}\n",
        arch={"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        expires_at=1_900_000_000,
    )


async def proven_gone(provider: Provider, vm_id: str) -> None:
    """Returns when `find` has it no more, as the lease waits for it."""
    async with asyncio.timeout(GONE_LIMIT_S):
        while await provider.find(vm_id) is not None:  # noqa: ASYNC110  # a cloud has no event to wait for
            await asyncio.sleep(0.05)


async def created_then_cancelled(provider: Provider, wanted: VmOrder) -> None:
    """A worker that is told to stop while its create is under way, or right after it."""
    async with asyncio.timeout(0.01):
        await provider.create(wanted)
        await asyncio.Event().wait()


class ProviderContract:
    """Fixture `world` comes from the subclass."""

    async def test_create_gives_a_vm_that_find_finds_with_its_labels(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order(role=VmRole.BUILDER)

        await provider.create(wanted)
        found = await provider.find(wanted.vm_id)

        assert found is not None
        assert found.vm_id == wanted.vm_id
        assert found.environment_id == "env-1"
        assert found.role == "builder"
        assert found.power is PowerState.RUNNING
        assert found.address

    async def test_find_of_an_unknown_id_is_none(self, world: World) -> None:
        assert await world.provider(ALPHA).find(mint("vm")) is None

    async def test_second_create_with_same_id_returns_same_vm(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()

        first = await provider.create(wanted)
        second = await provider.create(wanted)

        assert second.native_id == first.native_id
        assert await world.count(wanted.vm_id) == 1

    async def test_ten_creates_at_once_make_one_vm(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(provider.create(wanted)) for _ in range(10)]

        assert len({task.result().native_id for task in tasks}) == 1
        assert await world.count(wanted.vm_id) == 1

    async def test_create_again_after_a_lost_reply_adopts_what_was_made(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        world.lose_next_create(after=True)

        with pytest.raises(ProviderUnavailable):
            await provider.create(wanted)
        vm = await provider.create(wanted)

        assert vm.power is PowerState.RUNNING
        assert await world.count(wanted.vm_id) == 1

    async def test_create_again_after_a_request_that_never_arrived_makes_one_vm(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        world.lose_next_create(after=False)

        with pytest.raises(ProviderUnavailable):
            await provider.create(wanted)
        await provider.create(wanted)

        assert await world.count(wanted.vm_id) == 1

    async def test_what_a_lost_reply_left_behind_can_be_destroyed_by_id(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        world.lose_next_create(after=True)
        with pytest.raises(ProviderUnavailable):
            await provider.create(wanted)

        await provider.destroy(wanted.vm_id)
        await proven_gone(provider, wanted.vm_id)

        assert await world.count(wanted.vm_id) == 0

    async def test_destroy_twice_and_of_a_vm_that_never_was_succeeds(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)

        await provider.destroy(wanted.vm_id)
        await provider.destroy(wanted.vm_id)
        await provider.destroy(mint("vm"))
        await proven_gone(provider, wanted.vm_id)

        assert await world.count(wanted.vm_id) == 0

    async def test_list_owned_gives_only_this_installations_vms(self, world: World) -> None:
        alpha, beta = world.provider(ALPHA), world.provider(BETA)
        first, second, foreign = order(), order(), order(installation=BETA)
        await alpha.create(first)
        await alpha.create(second)
        await beta.create(foreign)

        listed = {vm.vm_id for vm in await alpha.list_owned()}

        assert {first.vm_id, second.vm_id} <= listed
        assert foreign.vm_id not in listed

    async def test_another_installations_vm_is_neither_found_nor_destroyed(self, world: World) -> None:
        alpha, beta = world.provider(ALPHA), world.provider(BETA)
        wanted = order()
        await alpha.create(wanted)

        await beta.destroy(wanted.vm_id)

        assert await beta.find(wanted.vm_id) is None
        assert await world.count(wanted.vm_id) == 1

    async def test_a_cancelled_create_leaves_nothing_that_destroy_cannot_take_away(self, world: World) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        with pytest.raises(TimeoutError):
            await created_then_cancelled(provider, wanted)

        await provider.destroy(wanted.vm_id)
        await proven_gone(provider, wanted.vm_id)

        assert await world.count(wanted.vm_id) == 0
