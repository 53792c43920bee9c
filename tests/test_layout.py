"""The layout's promises: import rules, footprints, the sandbox, and that our names mean our packages."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import _Definition as Definition  # The runner's own input; there is no public name for it.

from workflows.certificate import CertificateWorkflow
from workflows.environment import EnvironmentWorkflow
from workflows.pipeline import PipelineWorkflow
from workflows.reaper import ReaperWorkflow
from workflows.vm_lease import VmLeaseWorkflow

ROOT = Path(__file__).parents[1]
PACKAGES = ("stagely", "workflows", "activities", "api", "agent", "edge", "providers")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    program = f"{statement}\nimport sys; print(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_imports_point_down() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_our_package_names_resolve_inside_the_repository(name: str) -> None:
    found = importlib.import_module(name).__file__

    assert found is not None
    assert Path(found).is_relative_to(ROOT)


def test_the_agent_needs_only_websockets() -> None:
    foreign = {"redis", "pydantic", "sqlalchemy", "httpx", "temporalio", "structlog", "yaml", "uvloop", "stagely"}

    assert loaded_by("import agent.main") & foreign == set()


def test_the_edge_needs_only_redis_and_uvloop() -> None:
    foreign = {"pydantic", "sqlalchemy", "httpx", "temporalio", "structlog", "yaml", "websockets", "stagely", "agent"}

    assert loaded_by("import edge.proxy") & foreign == set()


def test_workflows_load_no_cloud_sdk() -> None:
    foreign = {"aioboto3", "boto3", "botocore", "hcloud", "pydo"}

    assert loaded_by("import workflows.environment") & foreign == set()


def test_a_worker_without_a_certificate_loads_none_of_its_libraries() -> None:
    foreign = {"acme", "josepy", "requests", "dns", "botocore"}

    assert loaded_by("import worker") & foreign == set()


@pytest.mark.parametrize(
    "kind", [EnvironmentWorkflow, PipelineWorkflow, VmLeaseWorkflow, ReaperWorkflow, CertificateWorkflow]
)
async def test_a_workflow_loads_in_temporals_sandbox(kind: type) -> None:
    definition = Definition.must_from_class(kind)

    SandboxedWorkflowRunner().prepare_workflow(definition)
