"""The main job on real parts: VMs with their own Engine, real builds, the real edge."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from stagely.cli import reach
from stagely.cli.demo import leftovers
from stagely.cli.demo import system as systems
from stagely.cli.progress import Progress
from tests.e2e.conftest import PORT_BASE
from tests.e2e.system import ROOT, System, commit, get, git, until

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(600)]

EXAMPLES = ROOT / "examples"
REPOSITORIES = Path(__file__).parent / "repos"


def test_a_pull_request_is_previewed_updated_and_gone_after_closing(system: System) -> None:
    repository = system.repository(EXAMPLES / "guestbook")

    opened = system.run("up", str(repository))
    assert (opened.code, opened.data["state"]) == (0, "ready")
    url = opened.data["urls"]["web"]
    assert re.fullmatch(r"http://[0-9a-z]{21}\.localhost:26080", url.rstrip("/"))
    assert "<h1>" in get(url).text
    written = reach.fetch(url.rstrip("/") + "/api/entries", method="POST", body={"text": "hello from a test"})
    assert written.status == 201
    first = json.loads(get(url.rstrip("/") + "/api/version").text)["version"]

    (repository / "api" / "VERSION").write_text("v2\n")
    commit(repository, "second")
    pushed = system.run("push", str(repository))
    assert (pushed.code, pushed.data["urls"]["web"]) == (0, url)
    second = json.loads(get(url.rstrip("/") + "/api/version").text)["version"]
    assert (first, second) == ("v1", "v2")
    assert "hello from a test" in get(url.rstrip("/") + "/api/entries").text

    (comment,) = system.comment_saying(opened.data["environment"], "✅ Preview ready")
    assert f"✅ Preview ready: {url}" in comment

    environment = system.environment(opened.data["environment"])
    closed = system.run("close", str(repository))
    assert (closed.code, closed.data["state"]) == (0, "terminated")
    assert get(url).status == 404
    found = system.left(environment)
    assert found.is_empty(), found


def test_every_phase_is_measured(system: System) -> None:
    repository = system.repository(EXAMPLES / "single")

    opened = system.run("up", str(repository))

    assert opened.code == 0
    expected = {"webhook", "plan", "vm_boot", "clone", "build", "push", "pull", "up", "health", "route"}
    assert set(opened.data["phases"]) >= expected - {"health"}
    assert all(seconds >= 0 for seconds in opened.data["phases"].values())
    system.run("close", str(repository))


def test_profiles_env_files_bind_mounts_networks_and_build_targets_work_as_written(system: System) -> None:
    repository = system.repository(EXAMPLES / "multi")

    opened = system.run("up", str(repository))

    assert opened.code == 0, opened
    assert list(opened.data["urls"]) == ["proxy", "app"]
    front = get(opened.data["urls"]["proxy"])
    back = get(opened.data["urls"]["app"])
    assert (front.status, back.status) == (200, 200)
    assert "measure twice" in front.text
    services = {s.name: s.status for s in system.environment(opened.data["environment"]).services}
    assert "debug" not in services
    assert services["clock"] == "running"
    system.run("close", str(repository))


def test_a_failing_build_names_target_exit_code_and_last_lines_and_frees_its_machines(system: System) -> None:
    repository = system.repository(REPOSITORIES / "failing-build")

    failed = system.run("up", str(repository))

    assert (failed.code, failed.data["state"]) == (1, "failed")
    failure = system.environment(failed.data["environment"]).failure
    (comment,) = system.comment_saying(failed.data["environment"], "❌ Build failed")
    assert failure is not None
    assert (failure.step, failure.subject, failure.exit_code) == ("build", "web", 3)
    assert failure.tail
    assert "❌ Build failed [View Logs]" in comment
    assert "exit code 3" in comment
    _no_machine_is_left(system, failed.data["environment"])
    system.run("close", str(repository))


def test_a_preview_that_never_gets_healthy_says_which_service_and_its_last_lines(system: System) -> None:
    repository = system.repository(REPOSITORIES / "never-healthy")

    failed = system.run("up", str(repository))

    assert (failed.code, failed.data["state"]) == (1, "failed")
    failure = system.environment(failed.data["environment"]).failure
    (comment,) = system.comment_saying(failed.data["environment"], "❌ Deployment failed")
    assert failure is not None
    assert failure.subject == "web"
    assert "licence server" in "\n".join(failure.tail)
    assert "❌ Deployment failed [View Logs]" in comment
    assert "licence server" in comment
    _no_machine_is_left(system, failed.data["environment"])
    system.run("close", str(repository))


def test_a_crash_loop_that_compose_calls_healthy_is_found_out(system: System) -> None:
    repository = system.repository(REPOSITORIES / "crash-loop")

    failed = system.run("up", str(repository))

    assert (failed.code, failed.data["state"]) == (1, "failed")
    failure = system.environment(failed.data["environment"]).failure
    assert failure is not None
    assert (failure.subject, failure.exit_code) == ("worker", 7)
    assert "queue.example is not reachable" in "\n".join(failure.tail)
    system.run("close", str(repository))


def test_a_missing_image_is_named(system: System) -> None:
    repository = system.repository(REPOSITORIES / "missing-image")

    failed = system.run("up", str(repository))

    assert failed.code == 1
    assert "no-such-image-anywhere:9.9" in failed.data["message"]
    system.run("close", str(repository))


def test_a_broken_compose_file_is_not_acceptable_and_orders_no_machine(system: System) -> None:
    repository = system.repository(REPOSITORIES / "broken-compose")

    refused = system.run("up", str(repository))

    assert refused.code == 2
    assert "docker-compose.yml:5" in refused.data["message"]
    system.run("close", str(repository))


@pytest.mark.parametrize("moment", ["boot", "build"])
def test_a_worker_killed_at_any_moment_loses_nothing_and_leaves_nothing(system: System, moment: str) -> None:
    repository = system.repository(EXAMPLES / "guestbook")
    command = system.start("up", str(repository))
    wanted = 1 if moment == "boot" else 3
    until(lambda: len(system.containers()) >= wanted, f"{wanted} machines are there")
    if moment == "build":
        until(lambda: _is_building(system), "a build runs")

    system.kill("worker")

    out, _ = command.communicate(timeout=300)
    outcome = json.loads(out)
    assert (command.returncode, outcome["state"]) == (0, "ready"), outcome
    environment = system.environment(outcome["environment"])
    assert get(outcome["urls"]["web"]).status == 200
    assert system.run("close", str(repository)).code == 0
    assert system.left(environment).is_empty()


def test_uncommitted_changes_are_named(system: System) -> None:
    repository = system.repository(REPOSITORIES / "broken-compose")
    (repository / "notes.txt").write_text("not in the commit")
    head = git(repository, "rev-parse", "HEAD")

    answer = system.run("up", str(repository))

    assert f"deploying commit {head[:12]}" in answer.narration
    assert "1 changed file" in answer.narration
    system.run("close", str(repository))


def test_without_the_token_the_api_answers_401(system: System) -> None:
    answer = get(f"{system.installation.api}/v1/api/environments")

    assert answer.status == 401
    assert json.loads(answer.text)["code"] == "unauthorized"


def test_stopping_and_starting_the_system_resumes_a_running_environment(system: System) -> None:
    repository = system.repository(EXAMPLES / "single")
    opened = system.run("up", str(repository))
    (url,) = opened.data["urls"].values()

    system.dev.stop()
    system.dev = systems.start(system.state, PORT_BASE, keep=False, progress=Progress())

    until(lambda: get(url).status == 200, "the preview answers again")
    environment = system.environment(opened.data["environment"])
    assert environment.state == "ready"
    assert system.run("close", str(repository)).code == 0
    assert system.left(environment).is_empty()


def test_a_killed_supervisor_leaves_no_process_and_its_state_can_be_used_again(system: System) -> None:
    pids = system.dev.pids()

    os.kill(system.dev.process.pid, signal.SIGKILL)
    system.dev.process.wait()

    until(lambda: leftovers.of_system("none", pids).processes == (), "every part has ended")
    system.dev = systems.start(system.state, PORT_BASE, keep=False, progress=Progress())
    assert system.run("ls").code == 0


def _no_machine_is_left(system: System, environment: str) -> None:
    with system.api() as api:
        until(lambda: {vm.state for vm in api.vms(environment)} <= {"gone"}, "its machines are gone")


def _is_building(system: System) -> bool:
    with system.api() as api:
        return any(step.name == "build" for e in api.environments() for step in api.environment(e.id).steps)
