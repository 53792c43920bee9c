"""up, push, close, ls and logs as programs, against a real forge and an api that plays a story."""

from __future__ import annotations

import json
from pathlib import Path

from api.schemas import Failure, LogLine
from tests.fakes.api import Frame, step
from tests.stagely.cli.running import Place, commit, git


def test_up_opens_a_pull_request_and_prints_its_url(place: Place, repository: Path) -> None:
    ended = place.run("up", str(repository))

    assert ended.code == 0, ended.err
    assert ended.out == "web  http://abc.localhost:1\n"
    assert "opened pull request 1 of local/shop" in ended.err
    assert "▸ build web" in ended.err
    assert "✓ build web" in ended.err
    assert place.api.actions == ["opened"]


def test_up_as_json_is_one_object_with_the_promised_keys(place: Place, repository: Path) -> None:
    ended = place.run("up", str(repository), "--json")

    assert ended.json == {
        "environment": "env-shop-1",
        "pr": 1,
        "state": "ready",
        "urls": {"web": "http://abc.localhost:1"},
        "message": "ready",
        "phases": {"build": 3.2},
        "expires_at": None,
        "is_pinned": False,
    }


def test_up_takes_the_number_that_is_asked_for(place: Place, repository: Path) -> None:
    ended = place.run("up", str(repository), "--pr", "7", "--json")

    assert ended.json["pr"] == 7


def test_up_on_an_open_pull_request_is_a_push(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    commit(repository, "Second")

    ended = place.run("up", str(repository))

    assert ended.code == 0, ended.err
    assert "pushed to pull request 1" in ended.err
    assert place.api.actions == ["opened", "synchronize"]


def test_up_on_the_same_commit_says_that_it_is_deployed(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("up", str(repository))

    assert ended.code == 0
    assert "was deployed already" in ended.err


def test_up_names_changes_that_are_not_committed(place: Place, repository: Path) -> None:
    for name in ("a", "b", "c"):
        (repository / name).write_text("new")

    ended = place.run("up", str(repository))

    assert "; 3 changed files are not in it" in ended.err


def test_failed_build_names_target_exit_code_last_lines_and_log(place: Place, repository: Path) -> None:
    failure = Failure(step="build", message="RUN make failed", subject="web", exit_code=3, tail=["cc: no such file"])
    place.api.story = (Frame("failed", "failed", (step("build", "web", state="failed"),), {}, failure),)

    ended = place.run("up", str(repository))

    assert ended.code == 1
    assert ended.out == ""
    assert "build web: RUN make failed (exit code 3)" in ended.err
    assert "    cc: no such file" in ended.err
    assert f"The whole log: stagely logs 1 --state {place.state}" in ended.err


def test_refused_plan_ends_with_2_and_its_own_words(place: Place, repository: Path) -> None:
    failure = Failure(step="plan", message="compose.yaml:1: services is missing. Add it.")
    place.api.story = (Frame("failed", "failed", (), {}, failure),)

    ended = place.run("up", str(repository))

    assert ended.code == 2
    assert "compose.yaml:1: services is missing. Add it." in ended.err


def test_detach_returns_at_once(place: Place, repository: Path) -> None:
    place.api.story = (Frame("building"),)

    ended = place.run("up", str(repository), "--detach", "--json")

    assert ended.code == 0
    assert ended.json["state"] == "queued"


def test_timeout_says_what_it_was_waiting_for(place: Place, repository: Path) -> None:
    place.api.story = (Frame("building", "waiting for a free builder"),)

    ended = place.run("up", str(repository), "--timeout", "1")

    assert ended.code == 1
    assert "it was at: waiting for a free builder" in ended.err


def test_interrupted_up_says_that_it_goes_on(place: Place, repository: Path) -> None:
    place.api.story = (Frame("building", "building 1 image"),)

    ended = place.interrupt_when_looked_at("up", str(repository))

    assert ended.code == 130
    assert f"Interrupted. What was started goes on by itself: stagely ls --state {place.state} shows it." in ended.err


def test_lost_webhook_is_named(place: Place, repository: Path) -> None:
    place.api.is_deaf = True

    ended = place.run("up", str(repository), "--timeout", "1")

    assert ended.code == 1
    assert "was the webhook delivered?" in ended.err


def test_push_without_a_pull_request_says_how_to_open_one(place: Place, repository: Path) -> None:
    ended = place.run("push", str(repository), "--json")

    assert ended.code == 2
    assert ended.json["state"] == "refused"
    assert f"stagely up {repository}" in str(ended.json["message"])


def test_close_by_number_waits_until_it_is_gone(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("close", "1", "--json")

    assert ended.code == 0
    assert ended.json["state"] == "terminated"
    assert place.api.actions == ["opened", "closed"]


def test_close_by_path_a_second_time_is_still_good(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.run("close", str(repository))

    ended = place.run("close", str(repository), "--pr", "1")

    assert ended.code == 0, ended.err


def test_close_of_an_unknown_number_names_the_known_ones(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("close", "9")

    assert ended.code == 2
    assert "no environment of pull request 9. `stagely ls` shows those there are" in ended.err


def test_ls_as_json_is_a_list_of_the_same_objects(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("ls", "--json")

    assert [environment["pr"] for environment in json.loads(ended.out)] == [1]
    promised = {"environment", "pr", "state", "urls", "message", "phases", "expires_at", "is_pinned"}
    assert set(json.loads(ended.out)[0]) == promised


def test_ls_shows_a_table(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    lines = place.run("ls").out.splitlines()

    assert lines[0].split() == ["PR", "REPOSITORY", "STATE", "SINCE", "UNTIL", "COMMIT", "URL"]
    assert lines[1].split()[:3] == ["1", "local/shop", "ready"]


def test_logs_have_their_streams_name_in_front(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.api.log_lines = [LogLine(id=1, run_id="run-1", stream="build/web", at=1.0, data="one\ntwo\n")]

    ended = place.run("logs", "1")

    assert ended.out == "build/web        │ one\nbuild/web        │ two\n"


def test_two_folders_of_one_name_are_two_repositories(place: Place, repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "shop"
    other.parent.mkdir()
    repository.rename(other)
    other.parent.rename(tmp_path / "first")
    place.run("up", str(tmp_path / "first" / "shop"))
    repository.mkdir()
    (repository / "compose.yaml").write_text("services: {}\n")
    git(repository, "init", "--quiet")
    commit(repository, "Other")

    place.run("up", str(repository))

    assert len({project.slug for project in place.api.projects}) == 2


def test_wrong_token_says_which_folder_to_look_at(place: Place, repository: Path) -> None:
    (place.state / "token").write_text("another")

    ended = place.run("ls")

    assert ended.code == 2
    assert "is --state the right folder?" in ended.err


def test_without_a_running_system_it_says_how_to_start_one(tmp_path: Path, place: Place) -> None:
    (place.state / "dev.json").unlink()

    ended = place.run("ls")

    assert ended.code == 2
    assert ended.err == (
        f"stagely: No Stagely runs on {place.state}. Start one with stagely dev --state {place.state}, "
        "or name its state folder: --state DIR\n"
    )
