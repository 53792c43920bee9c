"""What Compose builds on the preview VM, with a `docker` that notes how it was called."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.containers import Containers
from agent.deploy import Deployer, Plan
from agent.engine import Engine
from agent.ingress import Ingress
from agent.logs import ServiceLogs
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore
from agent.preview import Preview
from agent.protocol import Deploy, Failure
from agent.report import StepFailed
from agent.spool import Spool
from agent.streams import Batcher, LogStream

ORDER = Deploy("run/deploy", "http://127.0.0.1:9/o/r", "a" * 40, "p", ("c.yml",), (), (), 60.0)


def deployer(folder: Path) -> Deployer:
    engine = Engine(folder / "no-engine.sock")
    containers = Containers(engine)
    outbox = Outbox(Spool(folder / "spool"), ResultStore(folder / "results"))
    logs = ServiceLogs(folder, engine, containers, outbox, Patterns(), Batcher())
    return Deployer(folder / "work", folder, engine, containers, Preview(folder, containers, Ingress(print), logs))


def docker(folder: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> Path:
    """A `docker` first in PATH; the file it writes its arguments to."""
    called, program = folder / "called", folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {called}\n{end}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return called


async def build(folder: Path, *services: str) -> None:
    plan = Plan(folder, (folder / "c.yml",), folder / "override.yml", {}, {}, services)
    stream = LogStream(Patterns(), lambda _: None, lambda _: None)
    await deployer(folder)._build_here(ORDER, plan, stream, {})


async def test_the_services_without_a_pushed_image_are_built_from_the_users_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = docker(tmp_path, monkeypatch, "exit 0")

    await build(tmp_path, "admin", "tool")

    options = f"--ansi never --progress plain --project-name p --file {tmp_path}/c.yml"
    assert called.read_text() == f"compose {options} build admin tool\n"


async def test_nothing_to_build_calls_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = docker(tmp_path, monkeypatch, "exit 0")

    await build(tmp_path)

    assert not called.exists()


async def test_a_build_that_fails_is_a_build_failure_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(tmp_path, monkeypatch, "echo RUN make failed >&2; exit 17")

    with pytest.raises(StepFailed) as failed:
        await build(tmp_path, "admin")

    tail = ("Building here, with docker compose: admin", "RUN make failed")
    message = "admin: docker compose build: RUN make failed"
    assert failed.value.failure == Failure("build", message, "admin", 17, tail)


async def test_compose_fetches_no_files_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    docker(tmp_path, monkeypatch, f"env | grep ^COMPOSE_ | sort > {seen}")

    await build(tmp_path, "admin")

    assert seen.read_text() == "COMPOSE_EXPERIMENTAL_GIT_REMOTE=false\nCOMPOSE_EXPERIMENTAL_OCI_REMOTE=false\n"
