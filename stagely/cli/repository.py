"""A local git repository as the CLI sees it: which commit would be deployed, and what would not."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stagely.cli.refusal import NotAcceptable

GIT_TIMEOUT_S = 60.0  # `git status` of a very large work tree on a cold disk.
CONFIG_FILES = ("stagely.yaml", "stagely.yml")
# The names that `docker compose` itself looks for. Source: Compose specification, "Compose file".
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


@dataclass(frozen=True, slots=True)
class Checkout:
    """`root`: top of the work tree. `branch`: its name, or "detached".

    `changed_files`: files that differ from the commit, new ones included: they are not deployed.
    """

    root: Path
    sha: str
    subject: str
    branch: str
    changed_files: int


def look(path: Path) -> Checkout:
    """What is checked out at `path`. Raises NotAcceptable when it cannot become a preview as it is."""
    if not path.is_dir():
        raise NotAcceptable(f"{path} is not a folder. Give the path of a git repository.")
    root = Path(_git(path, "rev-parse", "--show-toplevel") or _not_a_repository(path))
    if root.resolve() != path.resolve():
        raise NotAcceptable(
            f"{path} is a folder inside the repository {root}, and a preview is made of a whole repository. "
            f"Give {root}, or make a repository of the folder: git -C {path} init && git -C {path} add . && "
            f"git -C {path} commit -m first"
        )
    sha = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not sha:
        raise NotAcceptable(f"{root} has no commit yet. Make one: git -C {root} add . && git -C {root} commit -m first")
    _refuse_without_compose(root, sha)
    return Checkout(
        root=root,
        sha=sha,
        subject=_git(root, "log", "-1", "--format=%s", sha) or sha[:12],
        branch=_git(root, "symbolic-ref", "--quiet", "--short", "HEAD") or "detached",
        changed_files=len((_git(root, "status", "--porcelain") or "").splitlines()),
    )


def not_deployed(checkout: Checkout) -> str:
    """The sentence about changes that are not committed; "" when there are none."""
    if checkout.changed_files == 0:
        return ""
    files = "1 changed file is" if checkout.changed_files == 1 else f"{checkout.changed_files} changed files are"
    return f"deploying commit {checkout.sha[:12]}; {files} not in it"


def _refuse_without_compose(root: Path, sha: str) -> None:
    names = set((_git(root, "ls-tree", "--name-only", sha) or "").splitlines())
    if names.isdisjoint(COMPOSE_FILES) and names.isdisjoint(CONFIG_FILES):
        raise NotAcceptable(
            f"Commit {sha[:12]} of {root} has no Compose file: none of {', '.join(COMPOSE_FILES)} is at its top. "
            "Add and commit one, or name yours in stagely.yaml (compose: path/of/it.yml)."
        )


def _not_a_repository(path: Path) -> str:
    raise NotAcceptable(
        f"{path} is not a git repository. Make it one: git -C {path} init && git -C {path} add . && "
        f"git -C {path} commit -m first"
    )


def _git(path: Path, *arguments: str) -> str:
    """Output without the last newline, "" when git refuses. GIT_* variables would make it another repository."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(path), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise NotAcceptable("git is not installed: there is no git command on PATH.") from None
    except subprocess.TimeoutExpired:
        raise NotAcceptable(f"git {arguments[0]} in {path} did not end within {GIT_TIMEOUT_S:g} s.") from None
    if done.returncode != 0 and "dubious ownership" in done.stderr:
        raise NotAcceptable(f"git refuses {path}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""
