"""From what a scenario saw to its figures."""

from __future__ import annotations

from bench.gateway import density, flood, herd, logs
from bench.gateway.beats import Quota
from bench.gateway.hostile import Report
from bench.gateway.loglines import Tally
from bench.gateway.machine import Spent
from bench.measures import Measure

PLAN = density.Plan(agents=100, seconds=20, heartbeat_s=5)


def crowd(missing: tuple[str, ...] = ()) -> density.Seen:
    return density.Seen(
        empty_kib=10_240, full_kib=10_840, beaten_kib=11_382, returned_kib=10_840, beating=Spent(20.0, 0.5, 1.0),
        beats=400, answers_s=[0.001, 0.002], admission=Spent(0.5, 0.05, 0.0), handshake_us=150.0, resting_cpu=0.01,
        quick=Spent(2.0, 1.2, 0.0), dropped=0, missing=missing,
    )  # fmt: skip


def by_name(measures: list[Measure]) -> dict[str, float]:
    return {m.metric: m.value for m in measures}


def test_density_gives_its_figures_per_agent() -> None:
    assert by_name(density.figures("stagely", PLAN, crowd())) == {
        "agents": 100.0,
        "memory_per_agent": 6.0,
        "memory_empty": 10.0,
        "memory_full": 10.586,
        "growth_after_quick_beats": 1.05,
        "growth_after_return": 1.0,
        "cpu_per_handshake": 150.0,
        "cpu_per_admission": 500.0,
        "admissions": 200.0,
        "beats": 20.0,
        "beats_cpu": 2.5,
        "resting_cpu": 1.0,
        "beats_core_beside": 5.0,
        "cpu_per_quick_beat": 100.0,
        "acknowledged_p50": 1.0,
        "acknowledged_p99": 2.0,
        "dropped": 0.0,
    }


def test_density_in_which_something_is_missing_has_no_figures() -> None:
    assert density.figures("stagely", PLAN, crowd(("3 of 100 agents did not get in",))) == []


def test_logs_give_cpu_per_line_and_what_reading_took() -> None:
    seen = logs.Seen(
        steady=Spent(10.0, 1.0, 0.0), postgres_s=0.5, lags_s=[0.02] * 1000, most=Spent(4.0, 2.0, 0.0),
        most_per_s=300_000.0, tally=Tally(1, 2, 3), read_back_s=0.05, disk_per_line=40.0,
    )  # fmt: skip

    assert by_name(logs.figures("stagely", seen)) == {
        "lost": 1.0,
        "doubled": 2.0,
        "misplaced": 3.0,
        "steady": 10_000.0,
        "lag_p50": 20.0,
        "lag_p99": 20.0,
        "cpu": 10.0,
        "cpu_per_line": 10.0,
        "core_beside": 0.0,
        "postgres_cpu": 5.0,
        "most": 300_000.0,
        "most_cpu": 50.0,
        "read_back": 50.0,
        "disk_per_line": 40.0,
    }


def test_a_log_without_a_wrong_line_is_complete() -> None:
    assert logs.wrongs(Tally(0, 0, 0)) == []


def test_each_kind_of_wrong_line_is_named() -> None:
    wrong = ["1 lines are not there", "2 lines are there again", "3 lines stand behind a later one"]

    assert logs.wrongs(Tally(1, 2, 3)) == wrong


def test_a_herd_s_last_agent_is_the_hundredth_percent() -> None:
    seen = herd.Seen(restart_s=0.5, back_s=[1.0, 2.0, 3.0, 9.0], attempts_s=[0.01], refused=2, cpu_s=0.004)

    found = by_name(herd.figures("stagely", 4, seen))

    assert (found["back_50"], found["back_99"], found["back_100"]) == (2.0, 9.0, 9.0)
    assert (found["refused"], found["timed_out"], found["cpu_per_return"]) == (2.0, 0.0, 1000.0)


def test_a_flood_is_compared_with_the_quieter_of_before_and_after() -> None:
    seen = flood.Seen(
        empty_kib=1024,
        alone=flood.Part([0.002], 1024),
        deaf=flood.Part([0.003], 1024 + 50 * 8),
        flood=flood.Part([0.012], 3072),
        again=flood.Part([0.1], 1024),
        flooders=Report(sent_bytes=4 * 1024**2, taken_log_bytes=2 * 1024**2, seconds=2.0),
        deaf_ones=Report(seconds=1.0),
    )
    seen.flood.spent = seen.deaf.spent = Spent(1.0, 0.5, 0.0)

    found = by_name(flood.figures("stagely", seen))

    assert (found["growth"], found["growth_per_deaf"]) == (2.0, 8.0)
    assert (found["good_p99_with_all"], found["good_p99_ratio"]) == (12.0, 6.0)
    assert (found["flood_sent"], found["flood_logs_taken"]) == (2.0, 1.0)


def test_a_quota_gives_what_is_due_and_keeps_parts_for_the_next_time() -> None:
    quota = Quota(per_s=150)

    assert [quota.due(0.01), quota.due(0.02), quota.due(0.03)] == [1, 2, 1]


def test_a_quota_forgets_what_was_not_used_in_its_burst() -> None:
    assert Quota(per_s=200, burst_s=0.1).due(60.0) == 20


def test_a_quota_of_nothing_gives_nothing() -> None:
    assert Quota(per_s=0).due(60.0) == 0
