"""Which limits hold, and the ratios they are about."""

from __future__ import annotations

from bench.gateway.verdicts import ratios, verdicts
from bench.lifecycle.figures import Verdict
from bench.measures import Measure


def memory(target: str, value: float) -> Measure:
    return Measure("density", target, "memory_per_agent", value, "KB")


def test_a_figure_is_compared_with_its_peer_in_the_same_run() -> None:
    found = ratios([memory("bare", 13.0), memory("stagely", 5.2)])

    assert found == [Measure("density", "stagely/bare", "memory_per_agent", 0.4, "x")]


def test_without_a_peer_there_is_no_ratio_and_no_verdict() -> None:
    assert ratios([memory("stagely", 5.2)]) == []
    assert verdicts([memory("stagely", 5.2)]) == []


def test_a_peer_that_uses_nothing_gives_no_ratio() -> None:
    assert ratios([memory("bare", 0.0), memory("stagely", 5.2)]) == []


def test_a_ratio_above_its_limit_fails() -> None:
    (verdict,) = verdicts([memory("bare", 10.0), memory("stagely", 6.1)])

    assert verdict == Verdict("density: memory_per_agent 0.61 x of bare's, at most 0.6 x", holds=False)


def test_a_ratio_at_its_limit_holds() -> None:
    (verdict,) = verdicts([memory("bare", 10.0), memory("stagely", 6.0)])

    assert verdict.holds


def test_a_figure_of_its_own_is_compared_with_its_limit() -> None:
    (verdict,) = verdicts([Measure("logs", "stagely", "lag_p99", 151.0, "ms")])

    assert verdict == Verdict("logs: lag_p99 151 ms, at most 150 ms", holds=False)


def test_one_lost_line_fails() -> None:
    (verdict,) = verdicts([Measure("logs", "stagely", "lost", 1.0, "lines")])

    assert not verdict.holds


def test_speed_has_a_least_value() -> None:
    (slow,) = verdicts([Measure("logs", "stagely", "most", 249_999.0, "lines/s")])
    (fast,) = verdicts([Measure("logs", "stagely", "most", 250_000.0, "lines/s")])

    assert slow == Verdict("logs: most 2.5e+05 lines/s, at least 250000 lines/s", holds=False)
    assert fast.holds
