"""What was measured, its medians and ratios, as lines of JSON and as a table. Pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

FIRST_200 = "webhook_to_first_200"


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure. `round` counts from 1; None is for medians and ratios over all rounds."""

    scenario: str
    target: str
    metric: str
    value: float
    unit: str
    round: int | None = None


def summary(measures: Sequence[Measure]) -> list[Measure]:
    """Of each figure the median over its rounds, minimum and maximum of the first 200, and stagely's ratio to bare."""
    groups: dict[tuple[str, str, str, str], list[float]] = {}
    for m in measures:
        groups.setdefault((m.scenario, m.target, m.metric, m.unit), []).append(m.value)
    found = []
    for (scenario, target, metric, unit), values in groups.items():
        found.append(Measure(scenario, target, f"{metric}_median", _rounded(statistics.median(values)), unit))
        if metric == FIRST_200:
            found.append(Measure(scenario, target, f"{metric}_min", _rounded(min(values)), unit))
            found.append(Measure(scenario, target, f"{metric}_max", _rounded(max(values)), unit))
    return found + _ratios(found)


def lines(measures: Sequence[Measure]) -> str:
    """One JSON object a line; keys scenario, target, metric, value, unit, and round where there is one."""
    texts = (json.dumps({k: v for k, v in asdict(m).items() if v is not None}) for m in measures)
    return "".join(f"{text}\n" for text in texts)


def table(measures: Sequence[Measure]) -> str:
    """The summary for people: a row per figure, a column per target, each scenario with its ratio."""
    rows = [f"{'scenario':<18} {'figure':<32} {'bare':>9} {'stagely':>9}"]
    cells = {(m.scenario, m.metric, m.target): m for m in measures}
    for scenario, metric in dict.fromkeys((m.scenario, m.metric) for m in measures if "/" not in m.target):
        values = [_cell(cells.get((scenario, metric, target))) for target in ("bare", "stagely")]
        rows.append(f"{scenario:<18} {metric:<32} {values[0]:>9} {values[1]:>9}")
    for m in measures:
        if "/" in m.target:
            rows.append(f"{m.scenario:<18} {m.target} = {m.value:.2f}")
    return "\n".join(rows)


def _ratios(medians: Sequence[Measure]) -> list[Measure]:
    by_target = {(m.scenario, m.target): m.value for m in medians if m.metric == f"{FIRST_200}_median"}
    return [
        Measure(scenario, "stagely/bare", "ratio", _rounded(value / by_target[scenario, "bare"]), "x")
        for (scenario, target), value in by_target.items()
        if target == "stagely" and (scenario, "bare") in by_target
    ]


def _rounded(value: float) -> float:
    return round(value, 3)


def _cell(measure: Measure | None) -> str:
    return "" if measure is None else f"{measure.value:.2f} {measure.unit}"
