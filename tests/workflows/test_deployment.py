"""The one list of workflows and the one sandbox: complete, and honest about what it lets through."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest
from temporalio.workflow import _Definition as Definition  # The runner's own input; there is no public name for it.

import workflows
from workflows.deployment import PASSED_THROUGH, WORKFLOWS, runner

FOLDER = Path(next(iter(workflows.__path__)))


def test_every_workflow_of_the_folder_is_in_the_list() -> None:
    modules = [importlib.import_module(f"workflows.{path.stem}") for path in FOLDER.glob("[!_]*.py")]
    found = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type) and is_ours(kind)}

    assert set(WORKFLOWS) == found


def is_ours(kind: type) -> bool:
    return kind.__module__.startswith("workflows.") and Definition.from_class(kind) is not None


@pytest.mark.parametrize("name", [name for name in PASSED_THROUGH if name.startswith("workflows.")])
def test_a_module_that_is_passed_through_decides_nothing(name: str) -> None:
    """What uses `workflow.` belongs inside the sandbox; so does what keeps state that runs would share."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    names = [node for node in ast.walk(ast.parse(Path(found.origin).read_text())) if isinstance(node, ast.ImportFrom)]

    assert [node.module for node in names if "workflow" in {alias.name for alias in node.names}] == []
    assert [key for key, value in vars(importlib.import_module(name)).items() if is_state(key, value)] == []


def is_state(key: str, value: object) -> bool:
    """Something that may change; what is written in capitals never does."""
    return not key.startswith("__") and not key.isupper() and isinstance(value, list | dict | set | bytearray)


@pytest.mark.parametrize("kind", WORKFLOWS)
async def test_every_workflow_loads_in_our_sandbox(kind: type) -> None:
    runner().prepare_workflow(Definition.must_from_class(kind))
