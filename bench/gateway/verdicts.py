"""The limits that a run must hold, and those of them whose figures are there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.lifecycle.figures import Verdict
from bench.measures import Measure


@dataclass(frozen=True, slots=True)
class Bar:
    """`metric` of stagely, or its ratio to the same metric of `peer`, is at most (`is_floor`: at least) `limit`."""

    scenario: str
    metric: str
    limit: float
    unit: str
    peer: str = ""
    is_floor: bool = False


BARS = (
    Bar("density", "memory_per_agent", 0.6, "x", "bare"),
    Bar("density", "cpu_per_handshake", 0.6, "x", "bare"),
    Bar("density", "beats_cpu", 0.9, "x", "bare"),
    Bar("density", "acknowledged_p99", 5, "ms"),
    Bar("density", "dropped", 0, "agents"),
    Bar("density", "growth_after_quick_beats", 1.05, "x"),
    Bar("density", "growth_after_return", 1.05, "x"),
    Bar("logs", "lost", 0, "lines"),
    Bar("logs", "doubled", 0, "lines"),
    Bar("logs", "lag_p99", 150, "ms"),
    Bar("logs", "cpu_per_line", 0.5, "x", "bare"),
    Bar("logs", "cpu_per_line", 0.5, "x", "bare-chunks"),
    Bar("logs", "most", 250_000, "lines/s", is_floor=True),
    Bar("logs", "read_back", 0.5, "x", "bare"),
    Bar("logs", "disk_per_line", 0.3, "x", "bare"),
    Bar("herd", "back_99", 15, "s"),
    Bar("herd", "back_100", 30, "s"),
    Bar("herd", "timed_out", 0, "attempts"),
    Bar("flood", "growth", 16, "MB"),
    Bar("flood", "growth_per_deaf", 64, "KB"),
    Bar("flood", "good_p99_ratio", 3, "x"),
)

Values = Mapping[tuple[str, str, str], float]


def ratios(measures: Iterable[Measure], bars: Iterable[Bar] = BARS) -> list[Measure]:
    """Stagely's figures by their peers', for every bar that compares."""
    values = {(m.scenario, m.target, m.metric): m.value for m in measures}
    found = []
    for bar in bars:
        ratio = _ratio(values, bar) if bar.peer else None
        if ratio is not None:
            found.append(Measure(bar.scenario, f"stagely/{bar.peer}", bar.metric, round(ratio, 3), "x"))
    return found


def verdicts(measures: Iterable[Measure], bars: Iterable[Bar] = BARS) -> list[Verdict]:
    """One for each bar whose figure is there."""
    values = {(m.scenario, m.target, m.metric): m.value for m in measures}
    return [verdict for bar in bars if (verdict := _verdict(values, bar)) is not None]


def _verdict(values: Values, bar: Bar) -> Verdict | None:
    value = _ratio(values, bar) if bar.peer else values.get((bar.scenario, "stagely", bar.metric))
    if value is None:
        return None
    against = f" of {bar.peer}'s" if bar.peer else ""
    limit = f"at {'least' if bar.is_floor else 'most'} {bar.limit:g} {bar.unit}"
    text = f"{bar.scenario}: {bar.metric} {value:.3g} {bar.unit}{against}, {limit}"
    return Verdict(text, value >= bar.limit if bar.is_floor else value <= bar.limit)


def _ratio(values: Values, bar: Bar) -> float | None:
    ours, theirs = (values.get((bar.scenario, target, bar.metric)) for target in ("stagely", bar.peer))
    return None if ours is None or not theirs else ours / theirs
