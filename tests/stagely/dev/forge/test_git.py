from __future__ import annotations

import asyncio
import os
import random
import subprocess
from pathlib import Path

import pytest

from stagely.dev.forge.client import ForgeClient
from stagely.errors import GitHubRefused
from tests.stagely.dev.forge.running import ADMIN, RunningForge, Work

GIT_TIMEOUT_S = 60


async def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, env=environment, check=False
        )

    return await asyncio.to_thread(run)


def _remote(forge: RunningForge, password: str, name: str = "shop") -> str:
    return f"{forge.url.replace('http://', f'http://x-access-token:{password}@')}/local/{name}.git"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True, timeout=GIT_TIMEOUT_S)
    return folder


async def test_a_read_token_fetches_one_commit_by_its_id(forge: RunningForge, work: Work, empty: Path) -> None:
    await forge.pull_of(work)
    token = await forge.token(["shop"], permissions={"contents": "read"})

    fetched = await _git("-C", str(empty), "fetch", "--depth=1", _remote(forge, token), work.head())

    assert fetched.returncode == 0, fetched.stderr
    assert (await _git("-C", str(empty), "show", "FETCH_HEAD:compose.yaml")).stdout == "services: {}\n"


async def test_a_commit_that_no_branch_reaches_any_more_is_fetched(
    forge: RunningForge, work: Work, empty: Path
) -> None:
    old = work.commit("a", "one")
    await forge.pull_of(work)
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    work.commit("a", "two")
    await forge.ask(lambda c: c.push("local/shop", work.path, work.head(), "feature"))

    fetched = await _git("-C", str(empty), "fetch", "--depth=1", _remote(forge, ADMIN), old)

    assert fetched.returncode == 0, fetched.stderr


async def test_a_read_token_does_not_push(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    token = await forge.token(["shop"], permissions={"contents": "read"})

    pushed = await _git("-C", str(work.path), "push", _remote(forge, token), "HEAD:refs/heads/other")

    assert pushed.returncode != 0
    assert "Write access to repository not granted" in pushed.stderr


async def test_a_token_of_another_repository_finds_nothing(forge: RunningForge, work: Work, empty: Path) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.ensure_repo("bank"))
    token = await forge.token(["bank"], permissions={"contents": "read"})

    fetched = await _git("-C", str(empty), "fetch", _remote(forge, token), work.head())

    assert fetched.returncode != 0
    assert "Repository not found" in fetched.stderr


async def test_an_ended_token_does_not_fetch(forge: RunningForge, work: Work, empty: Path) -> None:
    await forge.pull_of(work)
    token = await forge.token(["shop"], permissions={"contents": "read"})

    forge.clock.skipped_s = 3601

    fetched = await _git("-C", str(empty), "fetch", _remote(forge, token), work.head())
    assert fetched.returncode != 0
    assert "Authentication failed" in fetched.stderr


async def test_nobody_fetches_without_a_token(forge: RunningForge, work: Work, empty: Path) -> None:
    await forge.pull_of(work)

    fetched = await _git("-C", str(empty), "fetch", f"{forge.url}/local/shop.git", work.head())

    assert "could not read Username" in fetched.stderr


async def test_a_push_of_megabytes_arrives(forge: RunningForge, work: Work) -> None:
    noise = random.Random(1).randbytes(3 * 1024 * 1024)
    (work.path / "noise").write_bytes(noise)
    sha = work.commit("README", "text")

    pull = await forge.pull_of(work)

    fetched = await forge.ask(lambda c: c.pull("local/shop", pull.number))
    assert fetched.head.sha == sha


async def test_a_shallow_clone_can_be_pushed_and_fetched(
    forge: RunningForge, work: Work, tmp_path: Path, empty: Path
) -> None:
    work.commit("a", "one")
    sha = work.commit("a", "two")
    await _git("clone", "--depth=1", f"file://{work.path}", str(tmp_path / "shallow"))

    await forge.pull_of(Work(tmp_path / "shallow"))

    fetched = await _git("-C", str(empty), "fetch", "--depth=1", _remote(forge, ADMIN), sha)
    assert fetched.returncode == 0, fetched.stderr


async def test_a_push_runs_no_hook_of_the_repository(forge: RunningForge, work: Work) -> None:
    hook = work.path / ".git" / "hooks" / "pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)

    pull = await forge.pull_of(work)

    assert pull.head.sha == work.head()


async def test_a_push_with_a_wrong_token_fails_without_asking_the_person(forge: RunningForge, work: Work) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    def push() -> None:
        with ForgeClient(forge.url, "wrong") as client:
            client.push("local/shop", work.path, work.head(), "feature")

    with pytest.raises(GitHubRefused, match=r"git push of .* failed"):
        await asyncio.to_thread(push)


async def test_a_repository_made_twice_is_the_same(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    again = await forge.ask(lambda c: c.ensure_repo("shop"))

    assert again.full_name == "local/shop"
    assert len(await forge.ask(lambda c: c.pulls("local/shop"))) == 1


async def test_the_dumb_protocol_is_refused(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    assert (await forge.http.get("/local/shop.git/info/refs")).status_code == 403
    assert (await forge.http.get("/local/shop.git/HEAD")).status_code == 404
