"""`stagely dev` as a program: what it refuses, and that it starts, is killed, starts again and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stagely.processes import is_alive
from tests.services import free_port

TIMEOUT_S = 100.0


def dev(state: Path, base: int, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "stagely.cli.main", "dev", "--state", str(state), "--port-base", str(base)]
    env = {**os.environ, **environment}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def refused(state: Path, base: int, **environment: str) -> str:
    """What it says when it ends with exit code 2."""
    with dev(state, base, **environment) as process:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, said
    return said


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.05)


@pytest.fixture
def base() -> int:
    """A base below the range from which the kernel gives ports to connections, and below the end-to-end tests."""
    return 20000 + free_port() % 59 * 100


@pytest.fixture
def setup_record(tmp_path: Path) -> str:
    """A setup.json of programs that exist."""
    path = tmp_path / "setup.json"
    record = {"temporal": "/bin/true", "registry": "/bin/true", "vm_image": "none:1", "mirror": "stand-ins"}
    path.write_text(json.dumps(record))
    return str(path)


def test_machine_without_setup_is_told_to_run_it(tmp_path: Path, base: int) -> None:
    said = refused(tmp_path / "state", base, STAGELY_SETUP=str(tmp_path / "missing.json"))

    assert said.endswith("missing.json is missing. Run: make setup\n")


def test_port_in_use_is_named_with_its_owner(tmp_path: Path, base: int, setup_record: str) -> None:
    with socket.create_server(("127.0.0.1", base + 5)):
        said = refused(tmp_path / "state", base, STAGELY_SETUP=setup_record)

    assert f"Port {base + 5} (postgres) is in use by process {os.getpid()} (" in said
    assert f"stagely dev --port-base {base + 1000}" in said


def test_missing_docker_is_named(tmp_path: Path, base: int, setup_record: str) -> None:
    said = refused(tmp_path / "state", base, STAGELY_SETUP=setup_record, PATH=str(tmp_path))

    assert "Docker is not installed: there is no docker command on PATH. Run: make setup" in said


def test_engine_that_does_not_answer_is_named(tmp_path: Path, base: int, setup_record: str) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)

    said = refused(tmp_path / "state", base, STAGELY_SETUP=setup_record, PATH=f"{tmp_path}:/usr/bin:/bin")

    assert "Docker Engine does not answer (Cannot connect to the Docker daemon). Start it, or install it." in said


@pytest.mark.docker
def test_killed_system_starts_again_and_a_stopped_one_leaves_nothing(tmp_path: Path, base: int) -> None:
    state = tmp_path / "state"
    record = state / "dev.json"
    with dev(state, base) as first:
        until(lambda: record.exists() or first.poll() is not None)
        assert first.poll() is None
        children = [int(pid) for pid in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
        first.kill()
    until(lambda: not any(is_alive(child) for child in children))
    assert len(children) == 10

    with dev(state, base) as second:
        until(lambda: second.poll() is not None or json.loads(record.read_text())["pid"] == second.pid)
        assert second.poll() is None
        second.send_signal(signal.SIGTERM)
        said, _ = second.communicate(timeout=TIMEOUT_S)

    assert second.returncode == 0, said
    assert not record.exists()
    name = f"stagely-{(state / 'installation').read_text().strip()}"
    left = subprocess.run(["docker", "network", "inspect", name], capture_output=True, timeout=30)
    assert left.returncode == 1
