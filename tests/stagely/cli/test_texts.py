"""What people and programs read: outcomes, progress lines, names, tables. All pure."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from stagely.cli.bodies import EnvironmentView, FailureView, StepView
from stagely.cli.commands import age
from stagely.cli.demo.leftovers import Leftovers, manifests
from stagely.cli.demo.report import RunReport, as_json, table
from stagely.cli.follow import changes, waits_for
from stagely.cli.names import choose, known_name, name_of
from stagely.cli.outcome import Outcome, failure_lines, of_environment
from stagely.cli.progress import Progress
from stagely.cli.reach import curl_line
from stagely.cli.refusal import NotAcceptable
from stagely.cli.repository import look, not_deployed
from tests.stagely.cli.running import git


def environment(state: str, failure: FailureView | None = None) -> EnvironmentView:
    return EnvironmentView(
        id="env-1",
        project_id="prj-1",
        project="shop",
        repo="local/shop",
        pr=3,
        title="",
        state=state,
        message="",
        commit="c" * 40,
        since=0,
        created_at=0,
        urls={},
        failure=failure,
    )


def step(name: str, state: str, subject: str = "", started_at: float = 1.0) -> StepView:
    return StepView("run-1", name, subject, state, started_at, 1.0)


def test_ready_is_0_failed_is_1_and_a_refused_plan_is_2() -> None:
    failed = of_environment(environment("failed", FailureView("build", "no")))
    refused = of_environment(environment("failed", FailureView("plan", "no")))

    assert of_environment(environment("ready")).exit_code == 0
    assert failed.exit_code == 1
    assert refused.exit_code == 2


def test_failure_names_everything_a_person_needs() -> None:
    failure = FailureView("health", "is not healthy", "api", 7, ("starting", "bad config"))
    outcome = Outcome(1, "failed", "", pr=3, failure=failure)

    assert failure_lines(outcome, "stagely logs 3") == [
        "health api: is not healthy (exit code 7)",
        "",
        "    starting",
        "    bad config",
        "",
        "The whole log: stagely logs 3",
    ]


def test_a_step_is_told_once_per_state_in_the_order_of_its_start() -> None:
    told: dict[tuple[str, str, str], str] = {}
    first = changes(told, [step("build", "running", "web", 2.0), step("plan", "completed", started_at=1.0)])
    again = changes(told, [step("build", "completed", "web", 2.0), step("plan", "completed", started_at=1.0)])

    assert [(s.name, s.state) for s in first] == [("plan", "completed"), ("build", "running")]
    assert [(s.name, s.state) for s in again] == [("build", "completed")]


def test_before_the_webhook_it_waits_for_the_webhook() -> None:
    assert waits_for(None) == "waiting for the webhook to be taken"


def test_progress_without_a_terminal_is_plain_lines() -> None:
    stream, now = io.StringIO(), [100.0]
    progress = Progress(stream, {}, lambda: now[0])

    now[0] = 102.5
    progress.started("build web")
    progress.waiting("build web")
    now[0] = 105.0
    progress.ended("build web", 2.5)

    assert stream.getvalue() == ("   2.5 s  ▸ build web\n   5.0 s  ✓ build web                       2.5 s\n")


def test_long_silence_without_a_terminal_says_what_it_waits_for() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = Progress(stream, {}, lambda: now[0])

    now[0] = 16.0
    progress.waiting("waiting for a free builder")

    assert stream.getvalue() == "  16.0 s  … waiting for a free builder\n"


def test_a_folder_keeps_its_name_and_its_namesake_gets_another(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "My Shop!", tmp_path / "b" / "my-shop"

    assert name_of(one, tmp_path) == "my-shop"
    assert name_of(two, tmp_path) == choose(str(two), {"my-shop"})
    assert name_of(one, tmp_path) == "my-shop"
    assert known_name(two, tmp_path) != "my-shop"
    assert known_name(tmp_path, tmp_path) is None


def test_curl_line_goes_over_loopback_with_the_host_header() -> None:
    assert curl_line("http://abc.localhost:8080") == "curl -H 'Host: abc.localhost:8080' http://127.0.0.1:8080/"


def test_ages_are_rounded_down() -> None:
    assert [age(s) for s in (-1, 59, 61, 7300, 200000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_one_changed_file_is_said_in_the_singular(repository: Path) -> None:
    (repository / "new").write_text("x")
    checkout = look(repository)

    assert not_deployed(checkout) == f"deploying commit {checkout.sha[:12]}; 1 changed file is not in it"


def test_folder_without_git_says_how_to_make_a_repository(tmp_path: Path) -> None:
    with pytest.raises(NotAcceptable, match=r"is not a git repository\. Make it one: git -C"):
        look(tmp_path)


def test_folder_inside_a_repository_is_refused(repository: Path) -> None:
    inner = repository / "web"
    inner.mkdir()

    with pytest.raises(NotAcceptable, match="a preview is made of a whole repository"):
        look(inner)


def test_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")

    with pytest.raises(NotAcceptable, match="has no commit yet"):
        look(tmp_path)


def test_commit_without_a_compose_file_names_those_looked_for(repository: Path) -> None:
    git(repository, "rm", "--quiet", "compose.yaml")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "gone")

    with pytest.raises(NotAcceptable, match=r"none of compose\.yaml, compose\.yml, docker-compose\.yaml"):
        look(repository)


def test_table_has_a_column_per_run_and_only_phases_that_happened() -> None:
    runs = [RunReport("new PR", 12.0, {"build": 3.0, "up": 2.0}), RunReport("close", 1.0, {"teardown": 0.5})]

    assert table(runs) == [
        "seconds                       new PR         close",
        "──────────────────────────────────────────────────",
        "build                           3.00             -",
        "up                              2.00             -",
        "tear down                          -          0.50",
        "──────────────────────────────────────────────────",
        "sum of phases                   5.00          0.50",
        "from start to result           12.00          1.00",
    ]


def test_json_names_what_was_left_over_by_kind() -> None:
    found = as_json([], {"after closing": Leftovers(routes=("route:abc",))}, {"stagely": "0.1.0"}, 1.0)

    assert found["left_over"] == {
        "after closing": {
            "containers": [],
            "volumes": [],
            "networks": [],
            "routes": ["route:abc"],
            "manifests": [],
            "ledger": [],
            "processes": [],
        }
    }


def test_manifests_of_other_names_are_not_left_over(tmp_path: Path) -> None:
    below = tmp_path / "store" / "docker" / "registry" / "v2" / "repositories" / "prj"
    for name in ("env-1/web", "cache/web"):
        link = below / name / "_manifests" / "revisions" / "sha256" / "abc" / "link"
        link.parent.mkdir(parents=True)
        link.touch()

    assert manifests(tmp_path, "prj/env-1") == ("web/_manifests/revisions/sha256/abc",)
    assert manifests(tmp_path, "prj/env-2") == ()
