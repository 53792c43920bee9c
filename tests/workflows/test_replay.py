"""Recorded runs replayed against today's code: what would break a running environment fails here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from workflows.deployment import WORKFLOWS, runner
from workflows.messages import VmLeaseInput, VmLeaseResult

with workflow.unsafe.imports_passed_through():  # The sandbox reads this file again; cryptography loads only once.
    from tests.encryption import CONVERTER
    from tests.workflows.scenes import SCENES

FOLDER = Path(__file__).parent / "histories"
HISTORIES = sorted(FOLDER.glob("*.json"))


def test_every_workflow_has_a_recorded_history() -> None:
    recorded = {path.name.split(".")[0] for path in HISTORIES}

    assert recorded == {kind.__name__ for kind in WORKFLOWS}


def test_every_scene_is_recorded_and_nothing_else() -> None:
    """Red? `python -m tests.workflows.record_histories` plays all of them."""
    recorded = {path.name.split(".")[1] for path in HISTORIES}

    assert recorded == {scene.name for scene in SCENES}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_run_replays_against_todays_code(path: Path) -> None:
    """Red? Running environments would break. Guard the change with workflow.patched(); CONTRIBUTING.md says how."""
    replayer = Replayer(workflows=WORKFLOWS, data_converter=CONVERTER, workflow_runner=runner())

    result = await replayer.replay_workflow(_history(path), raise_on_replay_failure=False)

    assert result.replay_failure is None


@workflow.defn(name="VmLeaseWorkflow")
class ImpatientLease:
    """An incompatible change, meant: it waits before it creates."""

    @workflow.run
    async def run(self, order: VmLeaseInput) -> VmLeaseResult:
        await asyncio.sleep(1)
        return VmLeaseResult("released")

    @workflow.signal
    def release(self) -> None:
        return


async def test_an_incompatible_change_makes_the_replay_fail() -> None:
    replayer = Replayer(workflows=[ImpatientLease], data_converter=CONVERTER)

    with pytest.raises(NondeterminismError):
        await replayer.replay_workflow(_history(FOLDER / "VmLeaseWorkflow.ready_then_closed.json"))


def _history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())
