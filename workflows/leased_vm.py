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

from workflows.fanout import start
from workflows.messages import (
    AgentEvent,
    AgentEventKind,
    FailureReport,
    VmLeaseInput,
    VmLeaseResult,
    VmRef,
    lease_workflow_id,
)
from workflows.options import DESTROY_VM
from workflows.vm_lease import VmLeaseWorkflow


class VmLost(ApplicationError):
    """The VM or its agent is gone; `report` says which and since when. The owner may try another VM."""

    def __init__(self, report: FailureReport, *, retryable: bool) -> None:
        super().__init__(report.message, type="VmLost", non_retryable=True)
        self.report = report
        self.may_retry = retryable


@dataclass(slots=True)
class LeasedVm:
    """One VM under lease. Create it, `open()` it, and release it in every outcome."""

    order: VmLeaseInput
    is_online: bool = False
    results: dict[str, AgentEvent] = field(default_factory=dict)
    closed: FailureReport | None = None
    lost: bool = False
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
            )
        except WorkflowAlreadyStartedError:
            return  # Adopted after a reset: its agent's events reach this owner all the same.
        self._watch = start(self._watch_lease())

    def note(self, event: AgentEvent) -> None:
        """Write down what the agent reported; a repeated event changes nothing."""
        if event.kind is AgentEventKind.ONLINE:
            self.is_online = True
        elif event.kind is AgentEventKind.LOST:
            self.lost = True
        elif event.kind is AgentEventKind.RESULT and (event.boot_id, event.seq) not in self._seen:
            self._seen.add((event.boot_id, event.seq))
            self.results.setdefault(event.command_id, event)

    @property
    def is_gone(self) -> bool:
        return self.lost or self.closed is not None

    async def wait_online(self, timeout_s: float) -> None:
        """Wait for the agent's first HELLO. Raises VmLost when it does not come in time."""
        await self._wait(lambda: self.is_online, timeout_s, "vm_boot", "its agent's first contact")

    async def wait_result(self, command_id: str, timeout_s: float, step: str) -> AgentEvent:
        """The agent's RESULT of a command. Raises VmLost when VM, lease or agent end first, or time runs out."""
        await self._wait(lambda: command_id in self.results, timeout_s, step, f"the result of {step}")
        return self.results[command_id]

    async def release(self) -> None:
        """Tell the lease to destroy the VM; returns before it is done. The lease gone: destroy it here."""
        if self._lease is not None and self.closed is None:
            try:
                await self._lease.signal(VmLeaseWorkflow.release)
                return
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                # The lease closed between the check and the signal: the VM is destroyed by its id.
        await self.destroy()

    async def renew(self, expires_in_s: float) -> None:
        """Move the lease's dead-man deadline. A lease that has closed is noticed elsewhere."""
        if self._lease is None or self.closed is not None:
            return
        try:
            await self._lease.signal(VmLeaseWorkflow.renew, expires_in_s)
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

    async def _watch_lease(self) -> None:
        assert self._lease is not None
        try:
            result = await self._lease
        except ChildWorkflowError as error:
            self.closed = FailureReport("vm", f"the lease of VM {self.order.vm_id} ended: {error.cause or error}")
            await self.destroy()  # A terminated lease destroys nothing.
            return
        gone = FailureReport("vm", f"VM {self.order.vm_id} is gone: its lease was {result.reason}")
        self.closed = result.failure or gone

    async def _wait(self, condition: Callable[[], bool], timeout_s: float, step: str, what: str) -> None:
        try:
            await workflow.wait_condition(
                lambda: condition() or self.is_gone, timeout=timeout_s, timeout_summary=f"{step} of {self.order.vm_id}"
            )
        except TimeoutError:
            text = f"VM {self.order.vm_id} was given up: {what} did not come within {timeout_s:.0f} s"
            raise VmLost(FailureReport(step, text, code="timeout"), retryable=step == "vm_boot") from None
        if not condition():
            raise VmLost(self._gone_report(step), retryable=self.closed is None or not self.closed.code)

    def _gone_report(self, step: str) -> FailureReport:
        if self.closed is not None:
            return self.closed
        return FailureReport(
            step, f"the agent of VM {self.order.vm_id} fell silent and was given up", code="agent_lost"
        )
