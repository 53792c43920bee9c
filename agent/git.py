"""The repository at exactly one commit, on disk.

Nothing of the repository or of the machine decides what git does: no hooks, no submodules, no LFS filters, no
configuration but ours, and no protocol but http and https. The token travels in an environment variable, so that it
stands in no argument list and in no file of the work tree.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Sequence
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
    "protocol.http.allow": "always",
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


async def checkout(repo: str, sha: str, tree: Path, token: str) -> None:
    """Make `tree` the work tree of `repo` at `sha`. An existing one is brought up to date; untracked files stay.

    Raises StepFailed (step clone).
    """
    _refuse_odd(repo, sha)
    env = environment(repo, token)
    if not (tree / ".git").is_dir():
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        await _git(["init", "--quiet", "--template=", "."], tree, env, repo, sha)
    if not await has_commit(tree, sha):
        fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", repo, sha]
        await _git(fetch, tree, env, repo, sha)
    await _git(["checkout", "--quiet", "--force", "--detach", sha, "--"], tree, env, repo, sha)


async def has_commit(tree: Path, sha: str) -> bool:
    probe = await capture(Program(["git", "cat-file", "-e", f"{sha}^{{tree}}"], 30.0, tree, environment("", "")))
    return probe.exit_code == 0


async def object_ids(tree: Path, sha: str, paths: Sequence[str]) -> dict[str, str]:
    """Git's name for the content of each of these paths at `sha`; paths that the commit lacks are left out."""
    if not paths:
        return {}
    listed = await capture(Program(["git", "ls-tree", "-z", sha, "--", *paths], 30.0, tree, environment("", "")))
    found: dict[str, str] = {}
    for entry in listed.stdout.split("\0")[:-1]:
        described, path = entry.split("\t", 1)
        found[path] = described.split()[2]
    return found


def environment(repo: str, token: str) -> dict[str, str]:
    """git's whole configuration, as variables."""
    settings = dict(_SETTINGS)
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


async def _git(arguments: list[str], tree: Path, env: dict[str, str], repo: str, sha: str) -> None:
    try:
        finished = await capture(Program(["git", *arguments], FETCH_TIMEOUT_S, tree, env))
    except TookTooLong as error:
        raise _failed(f"{repo} at {sha[:12]}: git {arguments[0]} took longer than {FETCH_TIMEOUT_S:g} s.") from error
    if finished.exit_code:
        raise _failed(_explain(finished, arguments[0], repo, sha), finished)


def _explain(finished: Finished, verb: str, repo: str, sha: str) -> str:
    lines = [line for line in finished.stderr.strip().splitlines() if line.strip()]
    said = lines[-1] if lines else f"git {verb} ended with exit code {finished.exit_code}"
    return f"{repo} could not be fetched at commit {sha[:12]}: {said}. Check that the commit still exists there."


def _failed(message: str, finished: Finished | None = None) -> StepFailed:
    tail = tuple(finished.stderr.strip().splitlines()[-20:]) if finished else ()
    return StepFailed(Failure("clone", message, exit_code=finished.exit_code if finished else None, tail=tail))
