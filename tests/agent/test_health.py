"""When a preview stands, and what is said when it does not."""

from dataclasses import replace

from agent.containers import Container, ProbeResult
from agent.health import Verdict, judge

NOW = 1000.0
UP = Container(
    id="1",
    service="api",
    status="running",
    exit_code=0,
    health="",
    restarts=0,
    created_at=NOW - 10,
    started_at=NOW - 10,
    finished_at=0.0,
    restart_policy="no",
    network_mode="net",
    is_tty=False,
    is_out_of_memory=False,
    addresses=("172.18.0.2",),
    ports={},
)
CRASHING = replace(UP, service="web", status="restarting", exit_code=3, restarts=7, started_at=NOW, finished_at=NOW)


def verdict(container: Container, exposed: tuple[str, ...] = ()) -> tuple[Verdict, str]:
    judgement = judge({container.service: 1}, exposed, [container], NOW)[container.service]
    return judgement.verdict, judgement.why


def test_a_service_without_a_health_check_must_run_for_five_seconds() -> None:
    assert verdict(UP) == (Verdict.SETTLED, "")
    assert verdict(replace(UP, started_at=NOW - 4.9)) == (
        Verdict.PENDING,
        "has not run for 5 s without a restart",
    )


def test_a_service_with_a_health_check_must_be_healthy() -> None:
    assert verdict(replace(UP, health="healthy", started_at=NOW))[0] is Verdict.SETTLED
    assert verdict(replace(UP, health="starting"))[0] is Verdict.PENDING


def test_an_unhealthy_service_says_what_its_check_said() -> None:
    container = replace(UP, health="unhealthy", last_probe=ProbeResult(7, "curl: (7)\nconnection refused"))

    assert verdict(container) == (
        Verdict.FAILED,
        "is unhealthy: its health check ended with exit code 7: connection refused",
    )


def test_a_job_that_ended_with_zero_is_done() -> None:
    assert verdict(replace(UP, status="exited"))[0] is Verdict.SETTLED


def test_a_job_that_ended_otherwise_has_failed() -> None:
    assert verdict(replace(UP, status="exited", exit_code=4)) == (Verdict.FAILED, "ended with exit code 4")
    assert verdict(replace(UP, status="exited", exit_code=137, is_out_of_memory=True)) == (
        Verdict.FAILED,
        "ended with exit code 137 (it needed more memory than the machine has)",
    )


def test_a_service_with_a_url_must_not_end() -> None:
    assert verdict(replace(UP, status="exited"), exposed=("api",)) == (
        Verdict.FAILED,
        "ended with exit code 0, but it has a URL and must keep running",
    )


def test_a_program_that_does_not_exist_is_named() -> None:
    container = replace(UP, status="created", start_error='exec: "nosuch": not found')

    assert verdict(container) == (Verdict.FAILED, 'could not be started: exec: "nosuch": not found')


def test_what_was_not_created_yet_is_pending() -> None:
    found = judge({"api": 2, "web": 1}, (), [UP], NOW)

    assert found["api"].verdict is Verdict.PENDING
    assert found["web"].verdict is Verdict.PENDING


def test_a_crash_loop_fails_once_everything_else_has_been_up_for_a_while() -> None:
    found = judge({"api": 1, "web": 1}, (), [UP, CRASHING], NOW)

    assert found["web"].verdict is Verdict.FAILED
    assert found["web"].why == "crashed 7 times, at last with exit code 3"


def test_a_crash_loop_is_forgiven_while_something_it_may_need_is_starting() -> None:
    starting = replace(UP, health="starting")

    assert judge({"api": 1, "web": 1}, (), [starting, CRASHING], NOW)["web"].verdict is Verdict.PENDING


def test_a_crash_loop_is_forgiven_for_ten_seconds_after_the_others_came_up() -> None:
    just_up = replace(UP, health="healthy", started_at=NOW - 9)

    assert judge({"api": 1, "web": 1}, (), [just_up, CRASHING], NOW)["web"].verdict is Verdict.PENDING


def test_two_services_in_a_crash_loop_do_not_excuse_each_other() -> None:
    other = replace(CRASHING, service="api", id="2")

    found = judge({"api": 1, "web": 1}, (), [other, CRASHING], NOW)

    assert [found[name].verdict for name in ("api", "web")] == [Verdict.FAILED, Verdict.FAILED]


def test_a_few_restarts_are_no_crash_loop() -> None:
    assert verdict(replace(CRASHING, restarts=4))[0] is Verdict.PENDING
