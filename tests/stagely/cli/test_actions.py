"""Actions from the first word to the exit code, against a real forge and an api that plays a story."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.schemas import ActionAnswer, BuildJob, Failure, Problem
from stagely.cli.api import ApiClient
from stagely.cli.asking import action, ask
from stagely.cli.main import app
from stagely.cli.refusal import CommandFailed
from tests.fakes.api import TOKEN, FakeApi, Frame, step
from tests.stagely.cli.running import Place, git
from tests.stagely.cli.test_texts import environment

AWAITING = (Frame("awaiting_approval", "commit comes from another repository; someone must approve it"),)
FAILED = (Frame("failed", "failed", failure=Failure(step="build", message="make failed", subject="web")),)


def refusal(code: str, detail: str, status: int = 409) -> Problem:
    return Problem(title="No", status=status, detail=detail, code=code)


def head(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD")


def test_extend_says_until_when_it_stays(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("extend", "1", "12h")

    [asked] = place.api.asked
    assert ended.code == 0, ended.err
    assert (asked.action, asked.body) == ("extend", {"duration": "12h"})
    assert "ready: it stays until 20" in ended.err
    assert "UTC, 12 h from now" in ended.err


def test_pin_as_json_says_that_it_is_pinned(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("pin", "shop#1", "--json")

    assert (ended.code, ended.json["state"], ended.json["is_pinned"]) == (0, "ready", True)
    assert ended.json["message"] == "pinned: it stays until its pull request closes"


def test_unpin_by_path_takes_the_key_that_is_given(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("unpin", str(repository), "--key", "mine", "--json")

    [asked] = place.api.asked
    assert (asked.action, asked.key) == ("unpin", "mine")
    assert ended.json["is_pinned"] is False
    assert isinstance(ended.json["expires_at"], float)


def test_refusal_is_told_in_the_workflows_words(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.api.answers = [refusal("too_long", "its end would be more than 30 days ahead; pin it", 422)]

    ended = place.run("extend", "1", "30d")

    assert ended.code == 2
    assert "pull request 1 of local/shop: its end would be more than 30 days ahead; pin it.\n" in ended.err


def test_action_that_nobody_took_yet_is_asked_again_under_the_same_key(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.api.answers = [ActionAnswer(update_id="x", outcome="unanswered")] * 2

    ended = place.run("pin", "1")

    assert ended.code == 0, ended.err
    assert len(place.api.asked) == 3
    assert len({asked.key for asked in place.api.asked}) == 1


def test_action_that_nobody_takes_names_the_key_to_ask_again_with(api: FakeApi) -> None:
    api.answers = [ActionAnswer(update_id="x", outcome="unanswered")] * 2
    now = iter((0.0, 1.0, 31.0))

    with (
        ApiClient(api.url, TOKEN) as client,
        pytest.raises(CommandFailed, match=r"No worker took the extend of pull request 3 .* --key mine"),
    ):
        ask(client, environment("ready"), action("extend", "mine"), pause=lambda _: None, clock=lambda: next(now))


def test_redeploy_returns_once_it_was_taken(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("redeploy", "1", "--json")

    assert (ended.code, ended.json["state"]) == (0, "queued")
    assert [asked.action for asked in place.api.asked] == ["redeploy"]


def test_redeploy_waits_for_the_new_run_and_not_for_the_old_one(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("redeploy", "1", "--wait")

    assert ended.code == 0, ended.err
    assert "▸ build web" in ended.err
    assert ended.out == "web  http://abc.localhost:1\n"


def test_retry_that_fails_again_is_a_failure(place: Place, repository: Path) -> None:
    place.api.story = FAILED
    place.run("up", str(repository))
    place.api.again = (Frame("building", run_id="run-2"), replace(FAILED[0], run_id="run-2"))

    ended = place.run("retry", "1", "--wait")

    assert ended.code == 1
    assert "build web: make failed" in ended.err


def test_redeploy_of_a_stopped_preview_waits_for_its_next_life(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.run("stop", "1", "--wait")
    place.api.answers = [ActionAnswer(update_id="x", outcome="started")]

    ended = place.run("redeploy", "1", "--wait", "--json")

    assert (ended.code, ended.json["state"]) == (0, "ready")


def test_redeploy_of_a_closed_pull_request_says_how_to_open_it(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.run("close", "1")

    ended = place.run("redeploy", "1")

    assert ended.code == 2
    assert f"is closed. Open it again: stagely up PATH --pr 1 --state {place.state}" in ended.err
    assert place.api.asked == []


def test_stop_waits_when_it_is_told_to(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("stop", "1", "--wait", "--json")

    assert (ended.code, ended.json["state"]) == (0, "terminated")
    assert place.api.actions == ["opened"]


def test_up_of_an_outsiders_commit_says_how_to_approve_it(place: Place, repository: Path) -> None:
    place.api.story = AWAITING

    ended = place.run("up", str(repository))

    sha = head(repository)
    assert ended.code == 3
    assert "awaiting_approval\ncommit comes from another repository; someone must approve it\n" in ended.err
    assert f"then let it run: stagely approve 1 {sha[:12]} --state {place.state}" in ended.err


def test_approve_without_a_commit_shows_the_one_that_waits(place: Place, repository: Path) -> None:
    place.api.story = AWAITING
    place.run("up", str(repository))

    ended = place.run("approve", "1")

    assert ended.code == 2
    assert f"commit {head(repository)} waits in pull request 1 of local/shop: First" in ended.err
    assert f"stagely approve 1 {head(repository)[:12]} --state {place.state}" in ended.err
    assert place.api.asked == []


def test_approve_sends_the_whole_name_of_the_commit(place: Place, repository: Path) -> None:
    place.api.story = AWAITING
    place.run("up", str(repository))

    ended = place.run("approve", "1", head(repository)[:7], "--wait")

    [asked] = place.api.asked
    assert ended.code == 0, ended.err
    assert (asked.action, asked.body) == ("approve", {"sha": head(repository)})


def test_approve_with_yes_takes_the_commit_that_waits(place: Place, repository: Path) -> None:
    place.api.story = AWAITING
    place.run("up", str(repository))

    ended = place.run("approve", "1", "--yes", "--json")

    assert ended.code == 0, ended.err
    assert place.api.asked[0].body == {"sha": head(repository)}


@pytest.mark.parametrize("sha", ["0" * 40, "0000000", "abc"])
def test_approve_of_another_commit_names_the_one_that_waits(place: Place, repository: Path, sha: str) -> None:
    place.api.story = AWAITING
    place.run("up", str(repository))

    ended = place.run("approve", "1", sha)

    assert ended.code == 2
    assert f"The commit that waits is {head(repository)}, not {sha}" in ended.err
    assert place.api.asked == []


def test_approve_of_what_does_not_wait_says_its_state(place: Place, repository: Path) -> None:
    place.run("up", str(repository))

    ended = place.run("approve", "1", "--yes")

    assert ended.code == 2
    assert "No commit of pull request 1 of local/shop waits for approval: it is ready." in ended.err


def test_up_of_a_commit_that_failed_goes_on_from_its_failed_step(place: Place, repository: Path) -> None:
    place.api.story = FAILED
    place.run("up", str(repository))

    ended = place.run("up", str(repository))

    assert ended.code == 0, ended.err
    assert "failed before; trying again from the step at which it failed" in ended.err
    assert [asked.action for asked in place.api.asked] == ["retry"]


def test_up_of_a_failed_commit_begins_anew_where_no_failure_is_known(place: Place, repository: Path) -> None:
    place.api.story = FAILED
    place.run("up", str(repository))
    place.api.answers = [refusal("nothing_failed", "its last push did not fail")]

    ended = place.run("up", str(repository))

    assert ended.code == 0, ended.err
    assert [asked.action for asked in place.api.asked] == ["retry", "redeploy"]


def test_up_of_a_commit_whose_preview_was_stopped_deploys_it_again(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    place.run("stop", "1", "--wait")

    ended = place.run("up", str(repository))

    assert ended.code == 0, ended.err
    assert [asked.action for asked in place.api.asked] == ["stop", "redeploy"]


def test_build_that_waits_shows_its_place(place: Place, repository: Path) -> None:
    builds = (
        BuildJob(name="web", arch="amd64", state="pending", position=3),
        BuildJob(name="api", arch="amd64", state="pending", position=4),
        BuildJob(name="api", arch="arm64", state="running"),
    )
    place.api.story = (Frame("building", steps=(step("build", "api", state="running"),), builds=builds),)

    ended = place.run("up", str(repository), "--timeout", "1")

    assert (
        "it was at: build api, web waits for a build slot, position 3, "
        "api (amd64) waits for a build slot, position 4." in ended.err
    )


def test_ls_says_until_when_each_stays(place: Place, repository: Path) -> None:
    place.run("up", str(repository))
    known = place.api.environments["env-shop-1"]
    place.api.environments["env-shop-1"] = known.model_copy(update={"is_pinned": True})

    pinned = place.run("ls").out.splitlines()
    place.api.environments["env-shop-1"] = known
    unknown = place.run("ls").out.splitlines()

    at = pinned[0].index("UNTIL")
    assert pinned[1][at:].split()[0] == "pinned"
    assert unknown[1][unknown[0].index("UNTIL") :].split()[0] == "-"


@pytest.mark.parametrize("command", ["extend", "pin", "unpin", "redeploy", "retry", "stop", "approve"])
def test_each_command_has_help(command: str) -> None:
    ended = CliRunner().invoke(app, [command, "--help"])

    assert ended.exit_code == 0
    assert "Number of the pull request; or REPOSITORY#N, or a path." in " ".join(ended.stdout.split())
