"""The repository at exactly one commit, on disk.

Nothing of the repository or of the machine decides what git does: no hooks, no submodules, no LFS filters, no
configuration but ours, and no protocol but https, or http where the order says so. The token travels in an environment
variable, so that it stands in no argument list and in no file; only `fetch` gets it.

git's own folder lies outside the work tree: Compose files mount the tree (`.:/app`), and whoever can write a `.git`
decides with its configuration which programs git starts. So neither a container nor a build's context has a `.git`.
"""

from __future__ import annotations

import base64
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.protocol import Failure
from agent.report import StepFailed
from agent.run import Finished, Program, TookTooLong, capture

FETCH_TIMEOUT_S = 600.0  # A shallow fetch of a few GB over a slow line.
_SHA = re.compile(r"[0-9a-f]{40}")
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "advice.detachedHead": "false",
    "init.defaultBranch": "stagely",
    "credential.helper": "",
    "safe.directory": "*",
}


log = logging.getLogger("stagely.agent.git")


@dataclass(frozen=True, slots=True)
class Clone:
    """A work tree and git's folder for it, which must not be in reach of what runs in the tree. One user at a time."""

    tree: Path
    git_dir: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.tree)}


class _GitFailed(Exception):
    """git said no; it may work in a new folder."""

    def __init__(self, verb: str, finished: Finished) -> None:
        super().__init__(verb)
        self.verb = verb
        self.finished = finished


async def checkout(repo: str, sha: str, clone: Clone, token: str) -> None:
    """Make the tree that of `repo` at `sha`. An existing one is brought up to date; untracked files stay.

    A folder of git's that a killed git left broken is made anew; then files that only an earlier commit had stay, too.
    Raises StepFailed (step clone).
    """
    _refuse_odd(repo, sha)
    is_old = clone.git_dir.exists()
    try:
        await _checkout(repo, sha, clone, token)
    except _GitFailed as error:
        if not is_old:
            raise _refused(error, repo, sha) from error
        log.info("git %s failed, trying with a new folder: %s", error.verb, error.finished.stderr.strip())
        shutil.rmtree(clone.git_dir, ignore_errors=True)
        await _checkout_anew(repo, sha, clone, token)


async def _checkout_anew(repo: str, sha: str, clone: Clone, token: str) -> None:
    try:
        await _checkout(repo, sha, clone, token)
    except _GitFailed as error:
        raise _refused(error, repo, sha) from error


async def _checkout(repo: str, sha: str, clone: Clone, token: str) -> None:
    _clear(clone)
    if not (clone.git_dir / "HEAD").is_file():
        await _git(["init", "--quiet", "--template="], clone, environment("", ""), repo, sha)
    if not await _has_commit(clone, sha):
        fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", repo, sha]
        await _git(fetch, clone, environment(repo, token), repo, sha)
    await _git(["checkout", "--quiet", "--force", "--detach", sha, "--"], clone, environment("", ""), repo, sha)


def _clear(clone: Clone) -> None:
    """Remove what a killed git left, and a `.git` in the tree, which nobody but a container can have made."""
    clone.tree.mkdir(parents=True, exist_ok=True)
    clone.git_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for lock in clone.git_dir.rglob("*.lock"):
        lock.unlink(missing_ok=True)
    planted = clone.tree / ".git"
    if planted.is_symlink() or planted.is_file():
        planted.unlink(missing_ok=True)
    shutil.rmtree(planted, ignore_errors=True)


async def _has_commit(clone: Clone, sha: str) -> bool:
    return (await _ask(clone, "cat-file", "-e", f"{sha}^{{tree}}")).exit_code == 0


async def object_ids(clone: Clone, sha: str, paths: Sequence[str]) -> dict[str, str]:
    """Git's name for the content of each of these paths at `sha`; paths that the commit lacks are left out."""
    if not paths:
        return {}
    listed = await _ask(clone, "ls-tree", "-z", sha, "--", *paths)
    found: dict[str, str] = {}
    for entry in listed.stdout.split("\0")[:-1]:
        described, path = entry.split("\t", 1)
        found[path] = described.split()[2]
    return found


async def _ask(clone: Clone, *arguments: str) -> Finished:
    return await capture(Program(["git", *arguments], 30.0, clone.tree, environment("", "") | clone.variables))


def environment(repo: str, token: str) -> dict[str, str]:
    """git's whole configuration, as variables."""
    settings = dict(_SETTINGS)
    if (
        urlsplit(repo).scheme == "http"
    ):  # Asked for: a forge on this machine's own network. No https one may lead there.
        settings["protocol.http.allow"] = "always"
    if token:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        settings[f"http.{_origin(repo)}.extraHeader"] = f"Authorization: Basic {basic}"
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for i, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    return env


def _origin(repo: str) -> str:
    parts = urlsplit(repo)
    return f"{parts.scheme}://{parts.netloc}/"


def _refuse_odd(repo: str, sha: str) -> None:
    if not _SHA.fullmatch(sha):
        raise _failed(f"{sha[:60]!r} is not a full commit name (40 hexadecimal digits).")
    parts = urlsplit(repo)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password or parts.username:
        raise _failed(f"{repo[:200]!r} is not an http or https address of a repository without credentials in it.")


async def _git(arguments: list[str], clone: Clone, env: dict[str, str], repo: str, sha: str) -> None:
    try:
        program = Program(["git", *arguments], FETCH_TIMEOUT_S, clone.tree, env | clone.variables)
        finished = await capture(program)
    except TookTooLong as error:
        raise _failed(f"{repo} at {sha[:12]}: git {arguments[0]} took longer than {FETCH_TIMEOUT_S:g} s.") from error
    if finished.exit_code:
        raise _GitFailed(arguments[0], finished)


def _refused(error: _GitFailed, repo: str, sha: str) -> StepFailed:
    return _failed(_explain(error.finished, error.verb, repo, sha), error.finished)


def _explain(finished: Finished, verb: str, repo: str, sha: str) -> str:
    lines = [line for line in finished.stderr.strip().splitlines() if line.strip()]
    said = lines[-1] if lines else f"git {verb} ended with exit code {finished.exit_code}"
    return f"{repo} could not be fetched at commit {sha[:12]}: {said}. Check that the commit still exists there."


def _failed(message: str, finished: Finished | None = None) -> StepFailed:
    tail = tuple(finished.stderr.strip().splitlines()[-20:]) if finished else ()
    return StepFailed(Failure("clone", message, exit_code=finished.exit_code if finished else None, tail=tail))
