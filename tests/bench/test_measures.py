"""Medians, ratios and lines of the benchmark."""

from __future__ import annotations

import json

from bench.measures import FIRST_200, Measure, lines, summary, table

ROUNDS = [
    Measure("new_pull_request", "bare", FIRST_200, 10.0, "s", 1),
    Measure("new_pull_request", "bare", FIRST_200, 12.0, "s", 2),
    Measure("new_pull_request", "bare", FIRST_200, 30.0, "s", 3),
    Measure("new_pull_request", "stagely", FIRST_200, 15.0, "s", 1),
    Measure("new_pull_request", "stagely", FIRST_200, 14.0, "s", 2),
    Measure("new_pull_request", "stagely", FIRST_200, 18.0, "s", 3),
]


def test_summary_gives_medians_extremes_and_the_ratio_of_medians() -> None:
    found = {(m.target, m.metric): m.value for m in summary(ROUNDS)}

    assert found == {
        ("bare", "webhook_to_first_200_median"): 12.0,
        ("bare", "webhook_to_first_200_min"): 10.0,
        ("bare", "webhook_to_first_200_max"): 30.0,
        ("stagely", "webhook_to_first_200_median"): 15.0,
        ("stagely", "webhook_to_first_200_min"): 14.0,
        ("stagely", "webhook_to_first_200_max"): 18.0,
        ("stagely/bare", "ratio"): 1.25,
    }


def test_without_bare_there_is_no_ratio() -> None:
    assert all(m.target == "stagely" for m in summary([m for m in ROUNDS if m.target == "stagely"]))


def test_a_line_has_the_keys_of_the_format_and_a_round_only_where_there_is_one() -> None:
    first, last = lines([ROUNDS[0], *summary(ROUNDS)[-1:]]).splitlines()

    assert json.loads(first) == {
        "scenario": "new_pull_request",
        "target": "bare",
        "metric": "webhook_to_first_200",
        "value": 10.0,
        "unit": "s",
        "round": 1,
    }
    assert "round" not in json.loads(last)


def test_table_shows_both_targets_side_by_side_and_the_ratio() -> None:
    text = table(summary(ROUNDS))

    assert text.splitlines()[1].split() == [
        "new_pull_request",
        "webhook_to_first_200_median",
        "12.00",
        "s",
        "15.00",
        "s",
    ]
    assert "stagely/bare = 1.25" in text
