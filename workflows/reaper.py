"""ReaperWorkflow: one sweep over everything that costs money or leads somewhere, started by a Schedule.

Per-workflow timers are exact, but fail with the run that holds them: terminated, wedged, or lost with its server. A
sweep needs the ledger and the clouds only, and puts right what the timers missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.sweep_environments import EnvironmentSweeps
    from activities.sweep_routes import RouteSweeps
    from activities.sweep_vms import CloudSweeps, LedgerSweeps
    from activities.sweeps import SweepActivities
    from activities.vms import VmActivities

from workflows.failures import reason
from workflows.fanout import fanout
from workflows.messages import AgentEvent, AgentEventKind, FailureReport, lease_workflow_id
from workflows.options import REAP_VM, STORE, SWEEP, SWEEP_CLOUD
from workflows.orders import VmRef
from workflows.sweeps import AccountSweep, DoomedVm, Findings, Leftover, Sweep, SweepInput, SweepReport, SweepStart

_SIGHTED_BY_ABSENCE = (Leftover.VANISHED, Leftover.SILENT)
_URGENCY = (Leftover.ORPHAN, Leftover.UNLEASED, Leftover.EXPIRED, *_SIGHTED_BY_ABSENCE)  # Nobody else sees the first.


@workflow.defn
class ReaperWorkflow:
    """Looks everywhere, destroys a bounded number of VMs that nobody answers for, and tells their owners.

    A part that fails is noted, and the others go on. What is left over is seen again by the next sweep.
    """

    @workflow.run
    async def run(self, order: SweepInput) -> SweepReport:
        start = SweepStart(workflow.info().run_id, order)
        sweep = await workflow.execute_activity_method(SweepActivities.begin_sweep, start, **STORE)
        looks = await fanout(self._looks(sweep))
        doomed = [] if order.is_dry_run else chosen(looks, sweep.ceiling)
        ends = await fanout([self._end(vm) for vm in doomed])
        destroyed = tuple(vm for vm, error in zip(doomed, ends, strict=True) if not error)
        report = _report(sweep, looks, destroyed, [error for error in ends if error])
        await workflow.execute_activity_method(SweepActivities.conclude_sweep, report, **STORE)
        return report

    def _looks(self, sweep: Sweep) -> list[Coroutine[Any, Any, Findings]]:  # Any: a coroutine's send and yield types.
        accounts = [
            _noted(
                f"cloud {provider}",
                workflow.execute_activity_method(
                    CloudSweeps.survey_account, AccountSweep(sweep, provider), summary=provider, **SWEEP_CLOUD
                ),
            )
            for provider in sweep.providers
        ]
        run = workflow.execute_activity_method
        return [
            *accounts,
            _noted("ledger", run(LedgerSweeps.survey_ledger, sweep, **SWEEP)),
            _noted("environments", run(EnvironmentSweeps.survey_environments, sweep, **SWEEP)),
            _noted("webhooks", run(EnvironmentSweeps.deliver_webhooks, sweep, **SWEEP)),
            _noted("routes", run(RouteSweeps.sweep_routes, sweep, **SWEEP)),
            _noted("slots", run(SweepActivities.sweep_slots, sweep, **SWEEP)),
        ]

    async def _end(self, vm: DoomedVm) -> str:
        """Destroy the VM, prove it gone, tell its owner. Gives back why it is still there, or ""."""
        try:
            await workflow.execute_activity_method(
                VmActivities.destroy_vm, VmRef(vm.vm_id, vm.provider), summary=f"{vm.kind} {vm.vm_id}", **REAP_VM
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return f"VM {vm.vm_id} on {vm.provider} is not destroyed yet: {reason(error)}"
        if vm.owner_workflow_id and not await _signalled(vm.owner_workflow_id, "agent_event", _lost(vm)):
            await _signalled(lease_workflow_id(vm.vm_id), "release")  # An owner releases it; here is none.
        return ""


def chosen(looks: Sequence[Findings], ceiling: int) -> list[DoomedVm]:
    """The VMs that this sweep destroys, each once, the most urgent first, no more than the ceiling.

    What is only known by its absence is destroyed in small numbers or not at all: when many are missing at once, it
    is our view that is broken (a wrong account, a network), not they.
    """
    due = _total([look.due for look in looks])
    found: dict[str, DoomedVm] = {}
    for kind in _URGENCY:
        if kind in _SIGHTED_BY_ABSENCE and due[kind] > ceiling:
            continue
        for look in looks:
            for vm in look.doomed:
                if vm.kind == kind:
                    found.setdefault(vm.vm_id, vm)
    return list(found.values())[:ceiling]


async def _noted(part: str, look: Coroutine[Any, Any, Findings]) -> Findings:  # Any: as above.
    """What a part found; a part that failed found nothing, and says why."""
    try:
        return await look
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        return Findings(notes=(f"{part}: {reason(error)}",))


async def _signalled(workflow_id: str, signal: str, *arguments: AgentEvent) -> bool:
    """Whether a running workflow of this id took the signal."""
    try:
        await workflow.get_external_workflow_handle(workflow_id).signal(signal, args=arguments)
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        return False  # Nothing of this id runs: there is nobody to tell.
    return True


def _lost(vm: DoomedVm) -> AgentEvent:
    failure = FailureReport("vm", f"VM {vm.vm_id} {_REASONS[vm.kind]}; it was destroyed", code="vm_lost")
    return AgentEvent(vm.vm_id, "", 0, AgentEventKind.LOST, failure=failure)


def _report(sweep: Sweep, looks: Sequence[Findings], destroyed: tuple[DoomedVm, ...], errors: list[str]) -> SweepReport:
    acted = _total([look.acted for look in looks]) + Counter(str(vm.kind) for vm in destroyed)
    return SweepReport(
        sweep_id=sweep.sweep_id,
        ceiling=sweep.ceiling,
        is_dry_run=sweep.order.is_dry_run,
        seen=dict(_total([look.seen for look in looks])),
        due=dict(_total([look.due for look in looks])),
        acted=dict(acted),
        destroyed=destroyed,
        notes=(*(note for look in looks for note in look.notes), *errors),
    )


def _total(counts: Sequence[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


_REASONS = {
    Leftover.ORPHAN: "was unknown to the ledger",
    Leftover.UNLEASED: "had no running lease",
    Leftover.EXPIRED: "outlived its deadline",
    Leftover.VANISHED: "is no longer in its cloud: somebody removed it there",
    Leftover.SILENT: "was silent for too long",
}
