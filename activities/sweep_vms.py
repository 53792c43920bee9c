"""The reaper's look at VMs: each cloud's list against the ledger, and the ledger against leases, deadlines, silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client

from activities import running, sightings
from providers.base import Provider
from stagely.db.queries import sweeps
from stagely.db.queries.sweeps import SweptVm
from stagely.states import VmState
from workflows.messages import lease_workflow_id
from workflows.sweeps import AccountSweep, DoomedVm, Findings, Leftover, Sweep


@dataclass(slots=True)
class _Case:
    """What one part of the sweep has found so far."""

    engine: AsyncEngine
    sweep: Sweep
    seen: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    doomed: list[DoomedVm] = field(default_factory=list)

    async def add(self, kind: Leftover, found: Mapping[str, DoomedVm], scope: str = "") -> None:
        ripe = await sightings.due(self.engine, self.sweep, kind, found, scope)
        self.seen[kind] = len(found)
        self.due[kind] = len(ripe)
        self.doomed += [found[vm_id] for vm_id in ripe[: self.sweep.ceiling]]

    def findings(self, *notes: str) -> Findings:
        return Findings(self.seen, self.due, doomed=tuple(self.doomed), notes=notes)


@dataclass(frozen=True, slots=True)
class CloudSweeps:
    """`provider_of(name)` gives a provider that this class closes after each activity."""

    engine: AsyncEngine
    provider_of: Callable[[str], Provider]

    @activity.defn
    async def survey_account(self, account: AccountSweep) -> Findings:
        """VMs in this cloud that the ledger does not know or calls gone, and rows whose VM the cloud does not have.

        Only this installation's VMs: `list_owned` gives no other. The list is read first, and the ledger after it: a
        row is older than its VM, so whatever the list shows has one by then. A row of a VM that is still being made
        is its lease's affair. "Vanished" is also asked for by id, for a list may forget.
        """
        provider = self.provider_of(account.provider)
        try:
            return await self._survey(account, provider)
        finally:
            await provider.aclose()

    async def _survey(self, account: AccountSweep, provider: Provider) -> Findings:
        sweep, name = account.sweep, account.provider
        listed = {vm.vm_id: vm for vm in await provider.list_owned()}
        rows = {row.vm_id: row for row in await sweeps.vms_to_sweep(self.engine, name, listed)}
        born_before = time.time() - sweep.order.min_age_s
        unknown = {
            vm_id: DoomedVm(vm_id, Leftover.ORPHAN, name)
            for vm_id, vm in listed.items()
            if vm.created_at <= born_before and not _is_living(rows.get(vm_id), name)
        }
        missing = _all(
            Leftover.VANISHED,
            [row for row in rows.values() if row.vm_id not in listed and _has_run(row, sweep.order.min_age_s)],
        )
        case = _Case(self.engine, sweep)
        await case.add(Leftover.ORPHAN, unknown, scope=name)
        await case.add(Leftover.VANISHED, await _really_missing(provider, missing), scope=name)
        return case.findings()


@dataclass(frozen=True, slots=True)
class LedgerSweeps:
    engine: AsyncEngine
    client: Client

    @activity.defn
    async def survey_ledger(self, sweep: Sweep) -> Findings:
        """Living rows without a running lease, past their deadline, or whose agent has been silent too long.

        Silence is judged only when a gateway has listened for as long; else nobody could have heard them.
        """
        order, case = sweep.order, _Case(self.engine, sweep)
        rows = [row for row in await sweeps.vms_to_sweep(self.engine) if row.age_s >= order.min_age_s]
        leases = {lease_workflow_id(row.vm_id): row for row in rows}
        ended = await running.not_running(self.client, leases)
        await case.add(Leftover.UNLEASED, _all(Leftover.UNLEASED, [leases[one] for one in sorted(ended)]))
        expired = [row for row in rows if row.expired_s >= order.expiry_grace_s]
        await case.add(Leftover.EXPIRED, _all(Leftover.EXPIRED, expired))
        is_heard = await sweeps.is_anyone_listening(self.engine, order.silence_s)
        silent = [row for row in rows if row.state is VmState.RUNNING and row.silent_s >= order.silence_s]
        await case.add(Leftover.SILENT, _all(Leftover.SILENT, silent if is_heard else []))
        if is_heard or not silent:
            return case.findings()
        return case.findings(
            f"{len(silent)} VMs are silent, but no gateway has listened for {order.silence_s:.0f} s: holding still"
        )


async def _really_missing(provider: Provider, missing: Mapping[str, DoomedVm]) -> dict[str, DoomedVm]:
    return {vm_id: vm for vm_id, vm in missing.items() if await provider.find(vm_id) is None}


def _is_living(row: SweptVm | None, provider: str) -> bool:
    return row is not None and row.provider == provider and row.state is not VmState.GONE


def _has_run(row: SweptVm, for_s: float) -> bool:
    return row.state is VmState.RUNNING and min(row.age_s, row.running_s) >= for_s


def _all(kind: Leftover, rows: Sequence[SweptVm]) -> dict[str, DoomedVm]:
    return {row.vm_id: DoomedVm(row.vm_id, kind, row.provider, row.owner_workflow_id) for row in rows}
