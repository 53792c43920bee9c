"""The steps that take an environment down: visitors first, then VMs, then what remains to be written."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.burials import BurialActivities
    from activities.records import RecordActivities
    from activities.vms import VmActivities

from stagely.states import EnvironmentState, RunState
from workflows.messages import PullRequestFacts, lease_workflow_id
from workflows.options import BURIAL, DESTROY_VM, STORE_FOREVER
from workflows.orders import Burial, EnvironmentRef, Record, RouteOrder, Step
from workflows.status import describe_environment, mark
from workflows.vm_lease import VmLeaseWorkflow

_FAREWELL = {
    EnvironmentState.TERMINATED: "the pull request was closed or the environment stopped; everything of it is gone",
    EnvironmentState.REAPED: "its time to live was over; push again to get a new one",
}


async def record(record: Record, facts: PullRequestFacts | None, vm_id: str) -> None:
    """Write an event of the environment down, and show it in the Web UI."""
    mark(record, facts)
    if record.state is not None:
        describe_environment(facts, record, vm_id)
    summary = str(record.state or record.run_state or "time to live")
    await workflow.execute_activity_method(RecordActivities.record, record, summary=summary, **STORE_FOREVER)


async def withdraw(environment: str, vm_id: str, *, is_done: bool) -> None:
    """No visitor comes any more, and people see why. `is_done`: the look at the closed pull request did it."""
    text, route = "destroying its VMs", RouteOrder(environment, "withdrawn")
    ending = Record(environment, EnvironmentState.TERMINATING, text, route=route, publishes=True)
    if not is_done:
        await record(ending, None, vm_id)
        return
    mark(ending)
    describe_environment(None, ending, vm_id)


async def bury(environment: str, state: EnvironmentState, run_id: str, started: float) -> None:
    """Write the end down. What the ledger still knows as living then (a builder that lags) is destroyed first."""
    while True:
        step = Step("teardown", RunState.COMPLETED, started, ended_at=workflow.time())
        last = Record(environment, state, _FAREWELL[state], run_id=run_id, steps=(step,), publishes=True)
        mark(last)
        describe_environment(None, last, "")
        buried = await workflow.execute_activity_method(
            BurialActivities.bury, Burial(last), summary=str(state), **BURIAL
        )
        if not buried.vms_left:
            return
        await destroy_all(environment, buried.vms_left)


async def destroy_all(environment: str, vm_ids: tuple[str, ...]) -> None:
    """End the leases that still run, and destroy what has none."""
    for vm_id in vm_ids:
        lease: workflow.ExternalWorkflowHandle[VmLeaseWorkflow] = workflow.get_external_workflow_handle_for(
            VmLeaseWorkflow.run, lease_workflow_id(vm_id)
        )
        try:
            await lease.signal(VmLeaseWorkflow.release)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
    await workflow.execute_activity_method(
        VmActivities.destroy_all, EnvironmentRef(environment), summary="destroy what is left", **DESTROY_VM
    )
