"""Figures, ratios and verdicts of bench.lifecycle."""

from __future__ import annotations

import json

import pytest

from bench.lifecycle.figures import medians, of_round, percentile, ratios, verdicts
from bench.lifecycle.rounds import Crowd, Observed, Usage
from bench.measures import Measure, lines

SEEN = Observed(
    opening_s=6.0,
    closing_s=4.0,
    cpu=Usage(worker=3.0, server=6.0, postgres=1.0, driver=0.5),
    at_rest=(102_400, 204_800),
    peak=(112_640, 214_016),
    events=1800,
    first_activity_s=(0.4, 0.1, 0.2, 0.3, 0.9, 0.5, 0.6, 0.7, 0.8, 1.0),
)


def speed(scenario: str, target: str, value: float) -> Measure:
    return Measure(scenario, target, "environments_per_s", value, "1/s")


def cost(scenario: str, target: str, value: float) -> Measure:
    return Measure(scenario, target, "cpu_s_per_environment", value, "s")


def test_a_round_gives_its_figures_per_environment() -> None:
    found = {m.metric: (m.value, m.unit) for m in of_round(Crowd(10), "stagely", SEEN, 1)}

    assert found == {
        "environments_per_s": (1.0, "1/s"),
        "events_per_s": (180.0, "1/s"),
        "seconds_to_ready": (6.0, "s"),
        "seconds_to_gone": (4.0, "s"),
        "events_per_environment": (180.0, "events"),
        "worker_cpu_s_per_environment": (0.3, "s"),
        "server_cpu_s_per_environment": (0.6, "s"),
        "postgres_cpu_s_per_environment": (0.1, "s"),
        "driver_cpu_s_per_environment": (0.05, "s"),
        "cpu_s_per_environment": (1.0, "s"),
        "worker_memory_at_rest": (100.0, "MiB"),
        "worker_memory_peak": (110.0, "MiB"),
        "server_memory_at_rest": (200.0, "MiB"),
        "server_memory_peak": (209.0, "MiB"),
        "webhook_to_first_activity_p50": (0.5, "s"),
        "webhook_to_first_activity_p95": (1.0, "s"),
    }


def test_a_round_in_which_something_is_missing_has_no_figures() -> None:
    assert of_round(Crowd(10), "stagely", Observed(missing=("2 workflows still run",)), 1) == []


def test_the_median_of_rounds_keeps_its_name_and_loses_the_round() -> None:
    rounds = [Measure("at_once_1", "bare", "seconds_to_gone", value, "s", n) for n, value in enumerate((3.0, 1.0, 2.0))]

    assert medians(rounds) == [Measure("at_once_1", "bare", "seconds_to_gone", 2.0, "s")]


def test_speed_is_compared_within_a_scenario() -> None:
    found = [speed("at_once_1", "bare", 0.5), speed("at_once_1", "stagely", 0.4), speed("at_once_10", "bare", 1.0)]

    assert ratios(found) == [Measure("at_once_1", "stagely/bare", "ratio_environments_per_s", 0.8, "x")]


def test_growth_is_the_cost_at_100_by_that_at_10_compared_with_bares() -> None:
    found = [
        cost("at_once_10", "bare", 0.5),
        cost("at_once_100", "bare", 1.0),
        cost("at_once_10", "stagely", 0.8),
        cost("at_once_100", "stagely", 2.0),
    ]

    assert ratios(found) == [Measure("from_10_to_100", "stagely/bare", "ratio_cost_growth", 1.25, "x")]


def test_verdicts_name_each_limit_and_whether_it_holds() -> None:
    found = [
        Measure("at_once_10", "stagely/bare", "ratio_environments_per_s", 0.49, "x"),
        Measure("at_once_10", "stagely", "events_per_environment", 200.0, "events"),
        Measure("at_once_10", "bare", "events_per_environment", 256.0, "events"),
        Measure("from_10_to_100", "stagely/bare", "ratio_cost_growth", 1.2, "x"),
    ]

    assert [(v.text, v.holds) for v in verdicts(found)] == [
        ("at_once_10: 0.49 of bare's speed, at least 0.5", False),
        ("at_once_10: 200.00 events an environment, at most 200", True),
        ("from_10_to_100: 1.20 of bare's growth of cost, at most 1.1", False),
    ]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 95, 0.0), ([7.0], 50, 7.0), ([3.0, 1.0, 2.0], 50, 2.0), ([float(n) for n in range(1, 101)], 95, 95.0)],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_a_ratio_is_a_line_of_the_format() -> None:
    (line,) = lines(ratios([speed("at_once_1", "bare", 0.5), speed("at_once_1", "stagely", 0.5)])).splitlines()

    assert json.loads(line) == {
        "scenario": "at_once_1",
        "target": "stagely/bare",
        "metric": "ratio_environments_per_s",
        "value": 1.0,
        "unit": "x",
    }
