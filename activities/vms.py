"""VMs: ordered, found, destroyed and proven gone, each idempotent by `vm_id`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.records import new_command
from providers.base import Provider, Vm, VmOrder
from providers.errors import ProviderError, ProviderUnavailable, QuotaExceeded
from stagely.db.queries import ledger
from stagely.db.queries.ledger import LedgerOrder, LedgerRow
from stagely.errors import Conflict
from stagely.states import VmRole, VmState
from workflows.messages import VmLeaseInput
from workflows.orders import EnvironmentRef, VmCreated, VmRef

ADDRESS_POLL_S = 0.2  # `local` has an address at once; clouds take seconds, and this is no call to Temporal.
ADDRESS_LIMIT_S = 120.0  # The slowest cloud gives an address within a minute.
GONE_POLL_S = 0.2
GONE_LIMIT_S = 240.0  # EC2 shows "shutting-down" for up to three minutes; then the activity is retried.

log = structlog.get_logger()

UserData = Callable[[VmLeaseInput, float], str]
"""(order, issued_at as Unix seconds) to cloud-init's user-data; byte-identical for the same arguments."""


@dataclass(frozen=True, slots=True)
class VmActivities:
    """`provider_of(name)` gives a provider that this class closes after each activity."""

    engine: AsyncEngine
    provider_of: Callable[[str], Provider]
    user_data: UserData
    installation: str

    @activity.defn
    async def create_vm(self, order: VmLeaseInput) -> VmCreated:
        """Write the ledger row, then find or create the VM, then record its address.

        Raises Conflict when the row is being destroyed already: a released lease orders nothing, and what was made
        while somebody destroyed the row is destroyed here.
        """
        began = time.monotonic()
        provider = self.provider_of(order.provider)  # An unknown one is refused before anything is written.
        try:
            row = await ledger.open_row(self.engine, _ledger_order(order))
            if row.state in (VmState.DESTROYING, VmState.GONE):
                raise Conflict(f"VM {order.vm_id} is {row.state} already and is not made again")
            vm = await self._addressed(provider, await _answered(provider.create(self._vm_order(order, row))))
        except QuotaExceeded as error:
            await ledger.note_waiting(self.engine, order.vm_id, f"waiting, because {error}")
            raise
        finally:
            await provider.aclose()
        if not await ledger.note_running(self.engine, order.vm_id, vm.native_id, vm.address or ""):
            await self._destroy(row)
            raise Conflict(f"VM {order.vm_id} was given up while it was being made; it is destroyed")
        log.info("vm created", vm_id=order.vm_id, provider=order.provider, took_s=round(time.monotonic() - began, 3))
        return VmCreated(order.vm_id, vm.created_at)

    @activity.defn
    async def destroy_vm(self, ref: VmRef) -> None:
        """Destroy the VM and wait until the cloud's list has it no more.

        No ledger row: nothing was ever ordered, unless `ref.provider` names the cloud whose list has it. A row that
        says gone is asked for all the same: its VM may have been made after that was seen.
        """
        row = await ledger.find_row(self.engine, ref.vm_id)
        if row is not None and ref.provider in ("", row.provider):
            await self._destroy(row)
        elif ref.provider:
            await self._destroy_at_cloud(ref.vm_id, ref.provider)

    @activity.defn
    async def destroy_all(self, ref: EnvironmentRef) -> None:
        """Destroy every VM of an environment that the ledger does not know to be gone, side by side.

        One that cannot be destroyed now does not keep the others alive; its error is raised when all have ended.
        """
        rows = await ledger.living_rows(self.engine, ref.environment_id)
        ended = await asyncio.gather(*(self._destroy(row) for row in rows), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def _destroy(self, row: LedgerRow) -> None:
        began = time.monotonic()
        await ledger.note_destroying(self.engine, row.vm_id)
        try:
            await self._destroy_at_cloud(row.vm_id, row.provider)
        except ProviderError as error:
            # Also what a person must mend first (a revoked key) is tried again, for ever: the machine costs money.
            log.warning("vm not destroyed", vm_id=row.vm_id, provider=row.provider, error_code=error.code)
            raise ProviderUnavailable(f"VM {row.vm_id} is not destroyed yet: {error}") from error
        await ledger.note_gone(self.engine, row.vm_id)
        log.info("vm gone", vm_id=row.vm_id, provider=row.provider, took_s=round(time.monotonic() - began, 3))

    async def _destroy_at_cloud(self, vm_id: str, provider_name: str) -> None:
        provider = self.provider_of(provider_name)
        try:
            await provider.destroy(vm_id)
            await _proven_gone(provider, vm_id)
        finally:
            await provider.aclose()

    async def _addressed(self, provider: Provider, vm: Vm) -> Vm:
        deadline = time.monotonic() + ADDRESS_LIMIT_S
        while vm.address is None:
            if time.monotonic() > deadline:
                raise ProviderUnavailable(f"VM {vm.vm_id} has no address after {ADDRESS_LIMIT_S:.0f} s")
            await asyncio.sleep(ADDRESS_POLL_S)
            vm = await provider.find(vm.vm_id) or vm
        return vm

    def _vm_order(self, order: VmLeaseInput, row: LedgerRow) -> VmOrder:
        return VmOrder(
            vm_id=order.vm_id,
            installation=self.installation,
            project_id=order.project_id,
            environment_id=order.environment_id,
            role=VmRole(order.role),
            user_data=self.user_data(order, row.created_at.timestamp()),
            arch=order.arch,
            region=order.region,
            size=order.size,
            expires_at=int(row.expires_at.timestamp()),
        )


async def _answered(call: Coroutine[Any, Any, Vm]) -> Vm:  # Any: a coroutine's send and yield types.
    """A cloud makes what it was asked for though nobody waits any more: a cancel is raised after its answer."""
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _proven_gone(provider: Provider, vm_id: str) -> None:
    deadline = time.monotonic() + GONE_LIMIT_S
    while await provider.find(vm_id) is not None:
        if time.monotonic() > deadline:
            raise ProviderUnavailable(f"VM {vm_id} is still listed {GONE_LIMIT_S:.0f} s after its destruction")
        await asyncio.sleep(GONE_POLL_S)


def _ledger_order(order: VmLeaseInput) -> LedgerOrder:
    command = order.command
    return LedgerOrder(
        vm_id=order.vm_id,
        project_id=order.project_id,
        environment_id=order.environment_id,
        run_id=order.run_id,
        build_id=order.build_id,
        job=order.job,
        role=order.role,
        provider=order.provider,
        region=order.region,
        size=order.size,
        arch=order.arch,
        owner_workflow_id=order.owner_workflow_id,
        expires_in_s=order.expires_in_s,
        command=new_command(command) if command else None,
    )
