"""A worker killed at points of a traced run; `make test-faults` takes them all."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from activities.wiring import Adapters, cloud_activities, core_activities
from tests.faults.points import BEGIN, COMMIT, COMMITTING, END, Kill, Phase, kills
from tests.faults.trials import run, servers, traced

SEED = int(os.environ.get("STAGELY_FAULT_SEED", "20261124"))
SUBSET = 24
REAPERS = {"survey_account"}
"""Of the reaper, which looks again in five minutes whatever becomes of one look; tests/activities has its faults."""


@pytest.mark.timeout(420)
async def test_a_worker_killed_at_any_of_24_points_leaks_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async with servers(tmp_path) as (client, ports):
        points, units = await traced(client, ports, tmp_path)
        chosen = random.Random(SEED).sample(points, SUBSET)
        trials = await run(client, ports, tmp_path, chosen, lanes=4)

    assert units == every_activity() | {"publish"}
    assert [f"{trial.kill.name}: {trial.error} (seed {SEED})" for trial in trials if trial.error or trial.leaked] == []
    assert len(trials) == SUBSET
    assert [trial.kill.name for trial in trials if not trial.is_met] == []


def every_activity() -> set[str]:
    """Names of all activities of the lifecycle. A new one that no scene calls makes the test above fail."""
    nothing: Adapters = Adapters(*[None] * 12)  # type: ignore[arg-type]  # Only names are asked for.
    found = {activity.__name__ for activity in core_activities(nothing) + cloud_activities(nothing)}
    return found - REAPERS


def test_between_is_after_the_outside_effect_and_before_its_record() -> None:
    trace = {("create_vm", 1): [BEGIN, COMMITTING, COMMIT, "cloud.create", COMMITTING, COMMIT, END]}

    assert [(kill.phase, kill.mark, kill.count) for kill in kills("life", trace)] == [
        (Phase.BEFORE, BEGIN, 1),
        (Phase.BETWEEN, "cloud.create", 1),
        (Phase.AFTER, END, 1),
    ]


def test_between_of_what_only_writes_rows_is_within_the_transaction() -> None:
    trace = {("record", 2): [BEGIN, COMMITTING, COMMIT, END]}

    assert kills("life", trace)[1] == Kill("life", "record", 2, Phase.BETWEEN, COMMITTING, 1)
