"""A git repository made of examples/guestbook, whose versions are commits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "guestbook"
GIT_S = 60.0
_AUTHOR = ("-c", "user.name=Bench", "-c", "user.email=bench@stagely.test", "-c", "commit.gpgsign=false")


class Repository:
    """`name` is its name in the forge, `sha` its latest commit."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.full_name = f"local/{name}"
        self.path = folder / name
        shutil.copytree(EXAMPLE, self.path)
        self._git("init", "--quiet", "--initial-branch=main")
        self.sha = self.commit("v0")

    def commit(self, version: str) -> str:
        """Write this version, commit it and return the commit."""
        (self.path / "api" / "VERSION").write_text(f"{version}\n")
        self._git("add", "--all")
        self._git(*_AUTHOR, "commit", "--quiet", "--message", version)
        self.sha = self._git("rev-parse", "HEAD")
        return self.sha

    def _git(self, *arguments: str) -> str:
        argv = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=GIT_S).stdout.strip()
