"""docker-compose.temporal.yml as Compose reads it: what it refuses, what it exposes, and that its commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from stagely.dev.engines import valkey_program
from tests.api.world import eventually
from tests.deploy.stack import COMPOSE_FILE, FOLDER, PASSWORDS, ROOT, compose, services
from tests.services import child, free_port

JOBS = {"temporal-schema", "temporal-namespace"}


def check(root: Path, path: str) -> subprocess.CompletedProcess[str]:
    """`make check`'s line in the repository at `root`."""
    argv = [str(root / "deploy" / "temporal" / "check.sh")]
    return subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, timeout=60)


def copied(folder: Path) -> Path:
    """What check.sh looks at, to be broken."""
    shutil.copytree(FOLDER, folder / "deploy" / "temporal", ignore=shutil.ignore_patterns(".env"))
    shutil.copy(COMPOSE_FILE, folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def test_compose_takes_the_file() -> None:
    done = check(ROOT, os.environ["PATH"])

    assert (done.returncode, done.stderr) == (0, "")
    assert "Compose takes it" in done.stdout


def test_check_refuses_what_compose_refuses(tmp_path: Path) -> None:
    broken = copied(tmp_path) / COMPOSE_FILE.name
    broken.write_text(broken.read_text().replace("depends_on:", "depend_on:"))

    done = check(tmp_path, os.environ["PATH"])

    assert done.returncode != 0
    assert "depend_on" in done.stderr


@pytest.mark.parametrize(("text", "code"), [("", 0), ("services: [", 1)])
def test_check_without_compose_reads_the_file_and_says_what_it_left_out(tmp_path: Path, text: str, code: int) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    file = copied(tmp_path) / COMPOSE_FILE.name
    file.write_text(text or file.read_text())

    done = check(tmp_path, str(programs))

    assert done.returncode == code, done.stderr
    assert ("make test then does" in done.stdout) == (code == 0)


@pytest.mark.parametrize("name", sorted(PASSWORDS))
def test_missing_password_is_named(name: str) -> None:
    done = compose(["config", "-q"], {key: value for key, value in PASSWORDS.items() if key != name})

    assert done.returncode != 0
    assert f"required variable {name} is missing a value: set it in deploy/temporal/.env" in done.stderr


def test_nothing_listens_outside_this_machine() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]

    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert sorted(port["published"] for port in published) == ["5432", "6379", "7233", "8233", "9233"]


def test_versions_are_those_that_were_tried() -> None:
    assert {name: service["image"] for name, service in services().items()} == {
        "temporal-postgres": "postgres:16",
        "temporal-schema": "temporalio/admin-tools:1.31.2",
        "temporal": "temporalio/server:1.31.2",
        "temporal-namespace": "temporalio/admin-tools:1.31.2",
        "temporal-ui": "temporalio/ui:2.52.0",
        "postgres": "postgres:18",
        "valkey": "valkey/valkey:9",
    }


def test_what_lasts_is_watched_and_started_again_and_jobs_run_once() -> None:
    found = services()

    lasting = {name for name, service in found.items() if service["restart"] == "unless-stopped"}
    assert lasting == set(found) - JOBS
    assert {name for name, service in found.items() if "healthcheck" in service} == lasting
    assert {found[name]["restart"] for name in JOBS} == {"no"}


def test_example_names_every_variable_of_the_file() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_FILE.read_text()))
    named = set(re.findall(r"^([A-Z_]+)=", (FOLDER / "example.env").read_text(), re.MULTILINE))

    assert named == used


async def test_valkey_asks_for_the_password_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    (tmp_path / "valkey-server").symlink_to(valkey_program())
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("VALKEY_PASSWORD", "0c33")
    shell, flag, command = services()["valkey"]["command"]
    here = command.replace("$$", "$").replace("/data", f"{tmp_path} --port {port} --bind 127.0.0.1")

    with child([shell, flag, here], tmp_path / "valkey.log"):
        async with Redis(port=port, password="0c33") as known, Redis(port=port) as stranger:

            async def answers() -> bool:
                try:
                    return bool(await known.ping())
                except (OSError, RedisError):
                    return False

            await eventually(answers)
            with pytest.raises(AuthenticationError):
                await stranger.ping()
            assert (await known.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
