"""One real `stagely dev`, driven as a person does: by the `stagely` command and by requests to its edge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stagely.cli import reach
from stagely.cli.api import ApiClient
from stagely.cli.bodies import EnvironmentView
from stagely.cli.demo import leftovers
from stagely.cli.demo.leftovers import Leftovers
from stagely.cli.demo.system import DemoSystem
from stagely.cli.installation import Installation, find
from stagely.dev.forge.client import ForgeClient
from stagely.processes import is_alive

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 240.0
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command gave: exit code, the JSON on stdout, the narration on stderr."""

    code: int
    data: Any  # Any: JSON of one command or another.
    narration: str


@dataclass(slots=True)
class System:
    dev: DemoSystem
    folder: Path

    @property
    def state(self) -> Path:
        return self.dev.state

    @property
    def installation(self) -> Installation:
        return find(self.state)

    def run(self, *arguments: str) -> Answer:
        """`stagely ARGUMENTS --json` to its end."""
        done = subprocess.run(
            self._argv(*arguments), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, cwd=ROOT
        )
        return Answer(done.returncode, json.loads(done.stdout or "null"), done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`stagely ARGUMENTS --json`, running."""
        return subprocess.Popen(
            self._argv(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )

    def repository(self, source: Path, name: str = "") -> Path:
        """A git repository of `source` with one commit; a fresh one each time."""
        target = self.folder / (name or f"{source.name}-{len(list(self.folder.iterdir()))}")
        shutil.copytree(source, target)
        git(target, "init", "--quiet", "--initial-branch=work")
        commit(target, "first")
        return target

    def child(self, name: str) -> int:
        """The process id of one of the system's parts."""
        children = Path(f"/proc/{self.dev.process.pid}/task/{self.dev.process.pid}/children").read_text().split()
        wanted = {"worker": "worker.py", "gateway": "api.gateway"}[name]
        for pid in map(int, children):
            if wanted in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                return pid
        raise AssertionError(f"no {name} runs under {self.dev.process.pid}")

    def kill(self, name: str) -> None:
        """kill -9 of a part, and wait until the supervisor has started it anew."""
        old = self.child(name)
        os.kill(old, signal.SIGKILL)
        until(lambda: not is_alive(old) and self._has(name), f"{name} comes back")

    def api(self) -> ApiClient:
        here = self.installation
        return ApiClient(here.api, here.token)

    def environment(self, environment_id: str) -> EnvironmentView:
        with self.api() as api:
            return api.environment(environment_id)

    def comments(self, environment_id: str) -> list[str]:
        """The texts of the pull request's comments."""
        here, found = self.installation, self.environment(environment_id)
        with ForgeClient(here.forge, here.github_token) as forge:
            return [comment.body for comment in forge.comments(found.repo, found.pr)]

    def comment_saying(self, environment_id: str, wanted: str) -> list[str]:
        """The texts of the pull request's comments once one of them says so: they follow by an outbox, soon."""
        until(lambda: any(wanted in text for text in self.comments(environment_id)), f"a comment says {wanted!r}")
        return self.comments(environment_id)

    def close_all(self) -> None:
        """Take down what is still there: what a test that failed half-way left would be the next one's leftover."""
        with self.api() as api:
            for found in api.environments():
                api.act(found.id, "stop", found.id, {})
            until(lambda: api.environments() == [], "every environment is gone")

    def left(self, environment: EnvironmentView) -> Leftovers:
        """What is still there of one environment; other tests' routes do not count."""
        with self.api() as api:
            here = self.installation
            found = leftovers.of_environment(environment, api, here.id, here.urls["redis"], self.state / "registry")
        hosts = {urlsplit(url).netloc.partition(".")[0] for url in environment.urls.values()}
        return replace(found, routes=tuple(r for r in found.routes if r.removeprefix("route:") in hosts))

    def containers(self) -> list[str]:
        """The machines of this installation."""
        label = f"label=stagely.installation={self.installation.id}"
        done = subprocess.run(
            ["docker", "ps", "--all", "--filter", label, "--format", "{{.Names}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout.split()

    def _has(self, name: str) -> bool:
        try:
            return bool(self.child(name))
        except (AssertionError, OSError):
            return False

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stagely.cli.main", *arguments, "--json", "--state", str(self.state)]


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *author, *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def get(url: str) -> reach.Answer:
    return reach.fetch(url)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that has no event for us."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.1)  # noqa: TID251  # A plain process on the outside has nothing to wait on.
