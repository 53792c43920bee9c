"""Running `stagely` as a program, and the git repositories it is given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.api import FakeApi

COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """A state folder with a running forge and api behind it."""

    state: Path
    api: FakeApi

    def run(self, *arguments: str) -> Ended:
        """`stagely ARGUMENTS --state STATE` as a program."""
        with self._started(arguments) as process:
            out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
        return Ended(process.returncode, out, err)

    def interrupt_when_looked_at(self, *arguments: str) -> Ended:
        """The same, with Ctrl-C once it asks how the environment is."""
        with self._started(arguments) as process:
            assert self.api.looked_at.wait(COMMAND_TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
        return Ended(process.returncode, out, err)

    def _started(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "stagely.cli.main", *arguments, "--state", str(self.state)]
        env = {**os.environ, "NO_COLOR": "1"}
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def commit(folder: Path, message: str) -> str:
    """Commit everything and return the commit's id."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD")
