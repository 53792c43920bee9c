"""`python -m stagely.dev.forge` as its own process: stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stagely.dev.forge.client import ForgeClient
from stagely.errors import GitHubUnavailable
from tests.stagely.dev.forge.running import ADMIN, SECRET, Work, app_key

END_TIMEOUT_S = 60


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "github-token").write_text(f"{ADMIN}\n")
    (folder / "webhook-secret").write_text(f"{SECRET}\n")
    (folder / "github-app-key.pub.pem").write_text(app_key()[1])
    return folder


@contextlib.contextmanager
def _forge(state: Path, *hosts: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL; its first line says that it listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listen = ",".join(f"{host}:{port}" for host in ("127.0.0.1", *hosts))
    argv = [sys.executable, "-m", "stagely.dev.forge", "--state", str(state), "--listen", listen]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "forge listens" in process.stderr.readline()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate(timeout=END_TIMEOUT_S)


def test_sigterm_ends_it_with_exit_code_zero(state: Path) -> None:
    with _forge(state) as (process, url):
        with ForgeClient(url, ADMIN) as client:
            client.ensure_repo("shop")

        process.terminate()

        assert process.wait(END_TIMEOUT_S) == 0


def test_everything_is_there_after_kill_9(state: Path, work: Work) -> None:
    with _forge(state) as (process, url), ForgeClient(url, ADMIN) as client:
        client.ensure_repo("shop")
        client.push("local/shop", work.path, work.head(), "feature")
        client.open_pull("local/shop", "feature", "Add a door", number=7)
        process.kill()
        process.wait(END_TIMEOUT_S)

    with _forge(state) as (_, url), ForgeClient(url, ADMIN) as client:
        pull = client.pull("local/shop", 7)
        actions = [d.action for d in client.deliveries()]

    assert (pull.state, pull.head.sha) == ("open", work.head())
    assert actions == ["opened"]


def test_a_push_that_a_killed_forge_never_noticed_is_noticed_at_the_start(state: Path, work: Work) -> None:
    with _forge(state) as (_, url), ForgeClient(url, ADMIN) as client:
        client.ensure_repo("shop")
        client.push("local/shop", work.path, work.head(), "feature")
        client.open_pull("local/shop", "feature", "Add a door")
    # What receive-pack leaves when the forge dies right after it: the branch moved, nobody was told.
    sha = work.commit("a", "two")
    bare = state / "forge" / "repositories" / "local" / "shop.git"
    work.git("push", "--quiet", str(bare), "HEAD:refs/heads/feature")

    with _forge(state) as (_, url), ForgeClient(url, ADMIN) as client:
        pull = client.pull("local/shop", 1)
        actions = [d.action for d in client.deliveries()]

    assert pull.head.sha == sha
    assert actions == ["synchronize", "opened"]


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "stagely.dev.forge", "--state", str(tmp_path), "--listen", "127.0.0.1:0"]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)

    assert done.returncode == 1
    assert "cannot read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_forge_that_is_away_is_named(state: Path) -> None:
    with _forge(state) as (process, url):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(END_TIMEOUT_S)

        with ForgeClient(url, ADMIN) as client, pytest.raises(GitHubUnavailable, match="Is stagely dev running"):
            client.ensure_repo("shop")


def test_it_listens_on_every_address(state: Path) -> None:
    with _forge(state, "127.0.0.2") as (_, url):
        with ForgeClient(url, ADMIN) as first:
            first.ensure_repo("shop")

        with ForgeClient(url.replace("127.0.0.1", "127.0.0.2"), ADMIN) as second:
            assert second.pulls("local/shop") == []
