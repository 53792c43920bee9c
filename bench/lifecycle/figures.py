"""From what rounds gave to figures, their medians, ratios, and whether the limits hold. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.lifecycle.rounds import Crowd, Observed
from bench.measures import Measure

SPEED, EVENTS, COST = "environments_per_s", "events_per_environment", "cpu_s_per_environment"
RATIO = f"ratio_{SPEED}"
GROWTH = "ratio_cost_growth"
BOTH = "stagely/bare"
LEAST_SPEED, MOST_EVENTS, MOST_GROWTH = 0.5, 200.0, 1.1
FROM, TO = Crowd(10), Crowd(100)
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit: `text` says which, with the value found."""

    text: str
    holds: bool


def of_round(crowd: Crowd, target: str, seen: Observed, number: int) -> list[Measure]:
    """The figures of one round. A round in which something is missing has none: half a life costs less."""
    if seen.missing:
        return []
    size, server = crowd.size, seen.cpu.server
    values = [
        (SPEED, size / (seen.opening_s + seen.closing_s), "1/s"),
        ("events_per_s", seen.events / (seen.opening_s + seen.closing_s), "1/s"),
        ("seconds_to_ready", seen.opening_s, "s"),
        ("seconds_to_gone", seen.closing_s, "s"),
        (EVENTS, seen.events / size, "events"),
        ("worker_cpu_s_per_environment", seen.cpu.worker / size, "s"),
        ("server_cpu_s_per_environment", server / size, "s"),
        ("postgres_cpu_s_per_environment", seen.cpu.postgres / size, "s"),
        ("driver_cpu_s_per_environment", seen.cpu.driver / size, "s"),
        (COST, (seen.cpu.worker + server + seen.cpu.postgres) / size, "s"),
        ("worker_memory_at_rest", seen.at_rest[0] / _KIB_PER_MIB, "MiB"),
        ("worker_memory_peak", seen.peak[0] / _KIB_PER_MIB, "MiB"),
        ("server_memory_at_rest", seen.at_rest[1] / _KIB_PER_MIB, "MiB"),
        ("server_memory_peak", seen.peak[1] / _KIB_PER_MIB, "MiB"),
        ("webhook_to_first_activity_p50", percentile(seen.first_activity_s, 50), "s"),
        ("webhook_to_first_activity_p95", percentile(seen.first_activity_s, 95), "s"),
    ]
    return [Measure(crowd.name, target, name, round(value, 3), unit, number) for name, value, unit in values]


def medians(rounds: Iterable[Measure]) -> list[Measure]:
    """Of each figure over its rounds, under the same name, without a round."""
    groups: dict[Measure, list[float]] = {}
    for m in rounds:
        groups.setdefault(replace(m, value=0.0, round=None), []).append(m.value)
    return [replace(of, value=round(statistics.median(values), 3)) for of, values in groups.items()]


def ratios(found: Sequence[Measure]) -> list[Measure]:
    """Stagely's speed by `bare`'s in each scenario, and how much more its cost grows from 10 to 100 at once."""
    values = {(m.scenario, m.target, m.metric): m.value for m in found}
    both = []
    for scenario in dict.fromkeys(m.scenario for m in found):
        stagely, bare = (values.get((scenario, target, SPEED)) for target in ("stagely", "bare"))
        if stagely and bare:
            both.append(Measure(scenario, BOTH, RATIO, round(stagely / bare, 3), "x"))
    growths = [growth(values, target) for target in ("stagely", "bare")]
    if growths[0] and growths[1]:
        name = f"from_{FROM.size}_to_{TO.size}"
        both.append(Measure(name, BOTH, GROWTH, round(growths[0] / growths[1], 3), "x"))
    return both


def growth(values: dict[tuple[str, str, str], float], target: str) -> float | None:
    """The cost of an environment among 100 by that of one among 10."""
    small, large = (values.get((crowd.name, target, COST)) for crowd in (FROM, TO))
    return large / small if small and large else None


def verdicts(found: Iterable[Measure]) -> list[Verdict]:
    """Of the issue's limits those whose figure is there."""
    given = []
    for m in found:
        where = f"{m.scenario}: {m.value:.2f}"
        if m.metric == RATIO:
            given.append(Verdict(f"{where} of bare's speed, at least {LEAST_SPEED}", m.value >= LEAST_SPEED))
        elif m.metric == EVENTS and m.target == "stagely":
            given.append(Verdict(f"{where} events an environment, at most {MOST_EVENTS:.0f}", m.value <= MOST_EVENTS))
        elif m.metric == GROWTH:
            given.append(Verdict(f"{where} of bare's growth of cost, at most {MOST_GROWTH}", m.value <= MOST_GROWTH))
    return given


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed; of no values it is 0."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
