"""What runs workflows: the one list of their classes and the one sandbox, for workers, replays and tests."""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.certificate import CertificateWorkflow
from workflows.environment import EnvironmentWorkflow
from workflows.pipeline import PipelineWorkflow
from workflows.reaper import ReaperWorkflow
from workflows.vm_lease import VmLeaseWorkflow

WORKFLOWS: tuple[type, ...] = (
    EnvironmentWorkflow,
    PipelineWorkflow,
    VmLeaseWorkflow,
    ReaperWorkflow,
    CertificateWorkflow,
)

PASSED_THROUGH = (
    "stagely",
    "activities",
    "workflows.messages",
    "workflows.orders",
    "workflows.sweeps",
    "workflows.issuance",
    "workflows.attributes",
    "workflows.options",
    "workflows.lifetime",
    "workflows.requests",
    "workflows.steps",
)
"""Modules that the sandbox shares with the process in place of importing them anew for every run.

Only what keeps no state between calls: values, pure functions, and activities, of which a workflow takes no more than
the names. Measured: 84 to 94 ms of CPU per replayed run without them, 31 to 34 with, 16 without a sandbox.
Never a module that decides (`workflow.` anything): the sandbox is what keeps those honest.
"""


def runner() -> SandboxedWorkflowRunner:
    """The sandbox of every worker and replayer of ours."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))
