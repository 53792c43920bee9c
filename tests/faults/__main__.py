"""The fault suite: every kill point in every phase, then the other faults. `python -m tests.faults --json FILE`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from stagely.leaving import leave
from tests.faults.trials import Trial, run, servers, traced

LANES = 4  # A trial mostly waits for time-outs; two cores carry this many.


@dataclass(frozen=True, slots=True)
class Figure:
    scenario: str
    metric: str
    value: float
    unit: str
    target: str = "stagely"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--json", type=Path, help="write a line per figure to this file")
    parser.add_argument("--lanes", type=int, default=LANES, help="trials side by side (default: %(default)s)")
    parser.add_argument("--only", default="", help="kill points whose name holds this text")
    parser.add_argument("--kills-only", action="store_true", help="leave out the other faults")
    given = parser.parse_args()
    figures, failed = asyncio.run(_kill(given.lanes, given.only))
    if not given.kills_only:
        others, code = _others()
        figures += others
        failed += code != 0
    lines = [json.dumps({name: getattr(one, name) for name in Figure.__slots__}) for one in figures]
    print("\n".join(lines))
    if given.json:
        given.json.write_text("\n".join(lines) + "\n")
    leave(1 if failed else 0)


async def _kill(lanes: int, only: str) -> tuple[list[Figure], int]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stagely-faults-") as name:
        folder = Path(name)
        async with servers(folder) as (client, ports):
            points, _ = await traced(client, ports, folder)
            chosen = [kill for kill in points if only in kill.name]
            print(f"{len(chosen)} kills, {lanes} lanes", flush=True)
            trials = await run(client, ports, folder, chosen, lanes)
    bad = [trial for trial in trials if trial.error or trial.leaked or not trial.is_met]
    return _figures(trials, time.monotonic() - began), len(bad)


def _others() -> tuple[list[Figure], int]:
    """The figures and the exit code of this folder's tests, the slow ones too; only the subset of kills is left out."""
    with tempfile.TemporaryDirectory(prefix="stagely-faults-") as name:
        path = Path(name) / "figures.json"
        quiet = ["-q", "-W", "ignore", "-p", "no:cacheprovider"]
        code = int(pytest.main([*quiet, "tests/faults", "--deselect", _SUBSET, "--json", str(path)]))
        found = [Figure(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    return [*found, Figure("other faults", "failed", float(code != 0), "runs")], code


def _figures(trials: Sequence[Trial], seconds: float) -> list[Figure]:
    points = {(trial.kill.scene, trial.kill.unit, trial.kill.occurrence) for trial in trials}
    return [
        Figure("kill points", "points", len(points), "points"),
        Figure("kill points", "trials", len(trials), "trials"),
        Figure("kill points", "unmet", sum(not trial.is_met for trial in trials), "trials"),
        Figure("kill points", "failed", sum(bool(trial.error) for trial in trials), "trials"),
        Figure("kill points", "leaked_vms", sum(trial.leaked for trial in trials), "VMs"),
        Figure("kill points", "slowest_trial", max((trial.seconds for trial in trials), default=0.0), "s"),
        Figure("kill points", "took", seconds, "s"),
    ]


_SUBSET = "tests/faults/test_kill_points.py::test_a_worker_killed_at_any_of_24_points_leaks_nothing_and_loses_nothing"

if __name__ == "__main__":
    main()
