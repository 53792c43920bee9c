"""A VM as its owner sees it: the lease's child workflow, and what its agent reported.

Pipeline and environment own VMs in the same way: they start a lease, wait for "result or lease closed" (never for the
agent alone: a terminated lease would hang them), and release it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import (
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.vms import VmActivities

from workflows.failures import reason
from workflows.fanout import start
from workflows.messages import (
    AgentEvent,
    AgentEventKind,
    FailureReport,
    LeaseEnded,
    VmLeaseInput,
    VmLeaseResult,
    lease_workflow_id,
)
from workflows.options import DESTROY_VM
from workflows.orders import VmRef
from workflows.status import lease_attributes
from workflows.vm_lease import VmLeaseWorkflow

NO_CAPACITY = "no_capacity"  # providers.errors.NoCapacity: sold out here; another placement may do.
_LOSSES = frozenset({"", "agent_lost", "boot_timeout", "vm_lost"})  # Accidents, which another VM may be spared.


class VmLost(ApplicationError):
    """The VM or its agent is gone; `report` says which and since when. The owner may try another VM."""

    def __init__(self, report: FailureReport) -> None:
        super().__init__(report.message, type="VmLost", non_retryable=True)
        self.report = report

    @property
    def may_retry(self) -> bool:
        """An accident of this one VM. A refusal of the cloud meets the next one too."""
        return self.report.code in _LOSSES

    @property
    def is_sold_out(self) -> bool:
        return self.report.code == NO_CAPACITY


@dataclass(slots=True)
class LeasedVm:
    """One VM under lease. Create it, `open()` it (or `adopt()` it), and release it in every outcome."""

    order: VmLeaseInput
    results: dict[str, AgentEvent] = field(default_factory=dict)
    closed: FailureReport | None = None
    lost: FailureReport | None = None
    is_adopted: bool = False
    _lease: workflow.ChildWorkflowHandle[VmLeaseWorkflow, VmLeaseResult] | None = None
    _watch: asyncio.Task[None] | None = None
    _seen: set[tuple[str, int]] = field(default_factory=set)

    async def open(self, policy: ParentClosePolicy) -> None:
        """Start the lease and return at once; the VM is being created then."""
        try:
            self._lease = await workflow.start_child_workflow(
                VmLeaseWorkflow.run,
                self.order,
                id=lease_workflow_id(self.order.vm_id),
                parent_close_policy=policy,
                static_summary=f"{self.order.role} VM {self.order.job}".strip(),
                search_attributes=lease_attributes(self.order),
            )
        except WorkflowAlreadyStartedError:
            return  # Adopted after a reset: its agent's events reach this owner all the same.
        self._watch = start(self._watch_lease())

    async def adopt(self) -> None:
        """Take over a VM that an earlier run of this owner ordered: its lease tells us when it ends, by signal."""
        self.is_adopted = True
        try:
            await self._external.signal(VmLeaseWorkflow.report_end)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            self.note_ended(LeaseEnded(self.order.vm_id, VmLeaseResult("ended while nobody looked")))

    def note(self, event: AgentEvent) -> None:
        """Write down what the agent reported; a repeated event changes nothing."""
        if event.kind is AgentEventKind.LOST:
            self.lost = event.failure or self._silent()
        elif (event.boot_id, event.seq) not in self._seen:
            self._seen.add((event.boot_id, event.seq))
            self.results.setdefault(event.command_id, event)

    def note_ended(self, ended: LeaseEnded) -> None:
        """The lease has ended, and with it the VM."""
        reason = ended.result.reason
        code = reason if reason == "expired" else ""  # Time that ran out runs out on another VM too.
        gone = FailureReport("vm", f"VM {self.order.vm_id} is gone: its lease was {reason}", code=code)
        self.closed = self.closed or ended.result.failure or gone

    @property
    def is_gone(self) -> bool:
        return self.lost is not None or self.closed is not None

    def raise_if_gone(self) -> None:
        """Raises VmLost, with the reason, when the VM or its agent is gone."""
        if report := self.closed or self.lost:
            raise VmLost(report)

    async def wait_result(self, command_id: str, step: str, timeout_s: float | None = None) -> AgentEvent:
        """The agent's RESULT of a command. Raises VmLost when VM, lease or agent end first, or time runs out.

        Without `timeout_s` the lease's own deadline is the limit: a timer less.
        """
        await self._wait(lambda: command_id in self.results, timeout_s, step)
        return self.results[command_id]

    async def release(self) -> None:
        """Tell the lease to destroy the VM; returns before it is done. The lease gone: destroy it here."""
        if self.closed is None and (self._lease is not None or self.is_adopted):
            try:
                await self._external.signal(VmLeaseWorkflow.release)
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                # The lease closed between the check and the signal: the VM is destroyed by its id.
            else:
                return
        await self.destroy()

    async def renew(self, expires_at: float) -> None:
        """Move the lease's dead-man deadline to so many Unix seconds. A lease that has closed is noticed elsewhere."""
        if self.closed is not None:
            return
        try:
            await self._external.signal(VmLeaseWorkflow.renew, expires_at)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise

    async def destroy(self) -> None:
        """Destroy the VM by its id and prove it gone, whatever became of its lease. Idempotent."""
        await workflow.execute_activity_method(
            VmActivities.destroy_vm, VmRef(self.order.vm_id), summary=f"destroy {self.order.vm_id}", **DESTROY_VM
        )

    async def wait_closed(self) -> None:
        """Wait until the lease has ended, that is, until the VM is proven gone."""
        if self._watch is not None:
            await workflow.wait([self._watch], return_when=asyncio.ALL_COMPLETED)
        elif self.closed is None:
            await self.destroy()  # Nobody tells us of a lease that is terminated now: prove it ourselves.

    @property
    def _external(self) -> workflow.ExternalWorkflowHandle[VmLeaseWorkflow]:
        return workflow.get_external_workflow_handle_for(VmLeaseWorkflow.run, lease_workflow_id(self.order.vm_id))

    async def _watch_lease(self) -> None:
        assert self._lease is not None
        try:
            result = await self._lease
        except ChildWorkflowError as error:
            self.closed = FailureReport("vm", f"the lease of VM {self.order.vm_id} ended: {reason(error)}")
            await self.destroy()  # A terminated lease destroys nothing.
            return
        self.note_ended(LeaseEnded(self.order.vm_id, result))

    async def _wait(self, condition: Callable[[], bool], timeout_s: float | None, step: str) -> None:
        try:
            await workflow.wait_condition(
                lambda: condition() or self.is_gone, timeout=timeout_s, timeout_summary=f"{step} on {self.order.vm_id}"
            )
        except TimeoutError:
            text = f"VM {self.order.vm_id} was given up: the result of {step} did not come within {timeout_s:.0f} s"
            raise VmLost(FailureReport(step, text, code="timeout")) from None
        if not condition():
            self.raise_if_gone()

    def _silent(self) -> FailureReport:
        text = f"the agent of VM {self.order.vm_id} fell silent and was given up"
        return FailureReport("vm", text, code="agent_lost")
