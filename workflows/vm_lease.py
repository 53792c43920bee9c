"""VmLeaseWorkflow: one VM, from its order until it is proven gone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.vms import VmActivities

from workflows.failures import report_of
from workflows.fanout import protected, unless
from workflows.messages import AgentEvent, AgentEventKind, FailureReport, LeaseEnded, VmLeaseInput, VmLeaseResult
from workflows.options import DESTROY_VM, create_vm
from workflows.orders import VmRef


@workflow.defn
class VmLeaseWorkflow:
    """Creates a VM, holds it until it is released, cancelled or past its deadline, then destroys it and proves it.

    Every way out leads through the destruction, which works by `vm_id` alone and never gives up. A cancelled lease
    (its owner closed) completes like a released one: ending is what a lease is for.
    """

    @workflow.init
    def __init__(self, order: VmLeaseInput) -> None:
        self._order = order
        self._released = False
        self._reports_end = False
        self._expires_at = workflow.time() + order.expires_in_s

    @workflow.run
    async def run(self, order: VmLeaseInput) -> VmLeaseResult:
        self._show("being created")
        try:
            result = await self._hold()
        except (asyncio.CancelledError, FailureError) as error:
            if not is_cancelled_exception(error):
                await protected(self._destroy("its lease failed"))
                raise
            result = VmLeaseResult("cancelled")
        with contextlib.suppress(asyncio.CancelledError):  # Whoever cancels wants what is being done already.
            await protected(self._destroy(result.reason))
        if self._reports_end:
            await self._report(result)
        return result

    @workflow.signal
    def release(self) -> None:
        """The owner needs the VM no more. A second call changes nothing."""
        self._released = True

    @workflow.signal
    def renew(self, expires_at: float) -> None:
        """The owner still needs the VM: move the dead-man deadline to so many Unix seconds."""
        self._expires_at = max(self._expires_at, expires_at)

    @workflow.signal
    def report_end(self) -> None:
        """The owner continued as new and cannot see its child end any more: tell it by signal."""
        self._reports_end = True

    async def _hold(self) -> VmLeaseResult:
        creation = await unless(lambda: self._released, self._create())
        try:
            creation.result()
        except (asyncio.CancelledError, ActivityError) as error:
            if isinstance(error, ActivityError) and not is_cancelled_exception(error):
                return await self._without_vm(report_of("vm_boot", error, otherwise="create_timeout"))
            if not self._released:
                raise
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError  # The create finished though it was told to stop, and swallowed the cancel.
        self._show("running")
        return await self._wait_for_release()

    async def _create(self) -> None:
        await workflow.execute_activity_method(
            VmActivities.create_vm,
            self._order,
            summary=f"create {self._order.vm_id}",
            **create_vm(self._order.create_limit_s),
        )

    async def _without_vm(self, report: FailureReport) -> VmLeaseResult:
        """Say so at once: a cloud that refuses to create may refuse to destroy as well, and that is asked for ever."""
        lost = AgentEvent(self._order.vm_id, "", 0, AgentEventKind.LOST, failure=report)
        try:
            await self._owner.signal("agent_event", lost)
        except FailureError as error:  # The owner has ended: nobody needs to know.
            if is_cancelled_exception(error):
                raise
        return VmLeaseResult("create_failed", report)

    async def _wait_for_release(self) -> VmLeaseResult:
        while not self._released:
            left_s = self._expires_at - workflow.time()
            if left_s <= 0:
                return VmLeaseResult("expired")
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._released, timeout=left_s, timeout_summary="dead-man deadline"
                )
        return VmLeaseResult("released")

    async def _destroy(self, reason: str) -> None:
        self._show(f"being destroyed: {reason}")
        vm_id = self._order.vm_id
        await workflow.execute_activity_method(
            VmActivities.destroy_vm, VmRef(vm_id), summary=f"destroy {vm_id}", **DESTROY_VM
        )

    async def _report(self, result: VmLeaseResult) -> None:
        with contextlib.suppress(FailureError):  # It has ended too: nobody needs to know.
            await self._owner.signal("lease_ended", LeaseEnded(self._order.vm_id, result))

    @property
    def _owner(self) -> workflow.ExternalWorkflowHandle[Any]:  # Any: an environment or a pipeline.
        return workflow.get_external_workflow_handle(self._order.owner_workflow_id)

    def _show(self, phase: str) -> None:
        order = self._order
        where = " ".join(part for part in (order.provider, order.region, order.size, order.arch) if part)
        workflow.set_current_details(f"{order.role} VM `{order.vm_id}` on {where}, {order.job or 'preview'}: {phase}")
