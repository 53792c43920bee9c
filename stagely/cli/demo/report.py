"""The demo's table and its JSON: seconds per phase of the three runs, what was left over, versions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stagely.cli.demo.leftovers import Leftovers

PHASES = {
    "webhook": "webhook to workflow",
    "plan": "plan",
    "vm_boot": "VM boot",
    "clone": "clone",
    "build": "build",
    "push": "push",
    "merge": "merge",
    "pull": "pull",
    "up": "up",
    "health": "health",
    "route": "route",
    "teardown": "tear down",
}


@dataclass(frozen=True, slots=True)
class RunReport:
    """One of open, push, close. `wall_s`: from the command to its proven result (first 200, or 404 and nothing left).

    Phases of parallel machines overlap, so their sum may be more than `wall_s`.
    """

    name: str
    wall_s: float
    phases: Mapping[str, float] = field(default_factory=dict)
    commit: str = ""

    @property
    def sum_s(self) -> float:
        return sum(self.phases.values())


def table(runs: Sequence[RunReport]) -> list[str]:
    """One line per phase, one column per run."""
    names = [*PHASES, *sorted({name for run in runs for name in run.phases} - set(PHASES))]
    rows = [(PHASES.get(name, name), [run.phases.get(name) for run in runs]) for name in names]
    rows = [(title, cells) for title, cells in rows if any(cell is not None for cell in cells)]
    head = f"{'seconds':<22}" + "".join(f"{run.name:>14}" for run in runs)
    line = "─" * len(head)
    body = [_row(title, cells) for title, cells in rows]
    sums = _row("sum of phases", [run.sum_s for run in runs])
    return [head, line, *body, line, sums, _row("from start to result", [run.wall_s for run in runs])]


def as_json(
    runs: Sequence[RunReport], leftovers: Mapping[str, Leftovers], versions: Mapping[str, str], total_s: float
) -> dict[str, object]:
    """What `.stagely/demo.json` holds."""
    return {
        "runs": [
            {
                "name": run.name,
                "commit": run.commit,
                "phases": dict(run.phases),
                "sum_s": round(run.sum_s, 3),
                "wall_s": round(run.wall_s, 3),
            }
            for run in runs
        ],
        "left_over": {when: found.found() for when, found in leftovers.items()},
        "versions": dict(versions),
        "total_s": round(total_s, 3),
    }


def _row(title: str, cells: Sequence[float | None]) -> str:
    return f"{title:<22}" + "".join(f"{'-' if cell is None else f'{cell:.2f}':>14}" for cell in cells)
