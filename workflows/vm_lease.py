"""VmLeaseWorkflow: one VM, from its order until it is proven gone."""

from __future__ import annotations

import asyncio
import contextlib

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.vms import VmActivities

from workflows.fanout import protected
from workflows.messages import FailureReport, VmLeaseInput, VmLeaseResult, VmRef
from workflows.options import CREATE_VM, DESTROY_VM


@workflow.defn
class VmLeaseWorkflow:
    """Creates a VM, holds it until it is released, cancelled or past its deadline, then destroys it and proves it.

    Every way out leads through the destruction, which works by `vm_id` alone and never gives up.
    """

    @workflow.init
    def __init__(self, order: VmLeaseInput) -> None:
        self._order = order
        self._released = False
        self._expires_at = workflow.time() + order.expires_in_s

    @workflow.run
    async def run(self, order: VmLeaseInput) -> VmLeaseResult:
        workflow.set_current_details(f"{order.role} VM `{order.vm_id}` on {order.provider}: {order.job or 'preview'}")
        try:
            result = await self._hold()
        except BaseException:
            await protected(self._destroy())
            raise
        with contextlib.suppress(asyncio.CancelledError):  # The owner closed meanwhile, and that is what it wants too.
            await protected(self._destroy())
        return result

    @workflow.signal
    def release(self) -> None:
        """The owner needs the VM no more. A second call changes nothing."""
        self._released = True

    @workflow.signal
    def renew(self, expires_in_s: float) -> None:
        """The owner still needs the VM: move the dead-man deadline to so many seconds from now."""
        self._expires_at = workflow.time() + expires_in_s

    async def _hold(self) -> VmLeaseResult:
        try:
            await workflow.execute_activity_method(
                VmActivities.create_vm, self._order, summary=f"create {self._order.vm_id}", **CREATE_VM
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return VmLeaseResult("create_failed", _failure(error))
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError  # The create finished though it was told to stop, and swallowed the cancel.
        return await self._wait_for_release()

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

    async def _destroy(self) -> None:
        vm_id = self._order.vm_id
        await workflow.execute_activity_method(
            VmActivities.destroy_vm, VmRef(vm_id), summary=f"destroy {vm_id}", **DESTROY_VM
        )


def _failure(error: ActivityError) -> FailureReport:
    cause = error.cause
    code = cause.type or "" if isinstance(cause, ApplicationError) else ""
    return FailureReport(step="vm_boot", message=str(cause or error), code=code)
