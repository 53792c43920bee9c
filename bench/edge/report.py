"""The medians for people: a table per scenario, a row per target, with its first figure by Go's. Pure."""

from __future__ import annotations

from bench.edge.peers import GO
from bench.measures import Measure

_HIDDEN = ("errors",)


def tables(medians: list[Measure]) -> str:
    """Nothing for a scenario without figures."""
    return "\n\n".join(_table(name, medians) for name in dict.fromkeys(m.scenario for m in medians))


def _table(scenario: str, medians: list[Measure]) -> str:
    mine = [m for m in medians if m.scenario == scenario and m.metric not in _HIDDEN]
    columns = list(dict.fromkeys((m.metric, m.unit) for m in mine))
    cells = {(m.target, m.metric): m.value for m in mine}
    rows = [f"{scenario:<11}" + "".join(f"{f'{metric}, {unit}':>28}" for metric, unit in columns) + f"{'by go':>9}"]
    for target in dict.fromkeys(m.target for m in mine):
        values = [_cell(cells.get((target, metric))) for metric, _ in columns]
        rows.append(
            f"{target:<11}" + "".join(f"{value:>28}" for value in values) + _by_go(cells, target, columns[0][0])
        )
    return "\n".join(rows)


def _by_go(cells: dict[tuple[str, str], float], target: str, metric: str) -> str:
    ours, gos = cells.get((target, metric)), cells.get((GO, metric))
    return f"{ours / gos:>8.2f}x" if ours is not None and gos else ""


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
