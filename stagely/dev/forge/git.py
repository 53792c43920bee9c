"""Bare repositories on disk, asked and served by git itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

GIT_TIMEOUT_S = 20.0  # One question to a local repository: milliseconds; seconds for a diff of a very large one.
TRANSFER_TIMEOUT_S = 600.0  # One fetch or push of a large repository over loopback.
CHUNK_BYTES = 64 * 1024
DEFAULT_BRANCH = "main"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for no files at all.
_SHA = re.compile(r"[0-9a-f]{40}")

# What a forge's repositories need beyond `git init`; the user's own git configuration never applies here.
_CONFIG = {
    "core.fsync": "none",  # What a killed forge wrote is kept by the kernel; a power cut may cost a local copy.
    "uploadpack.allowAnySHA1InWant": "true",  # Builders fetch one commit by its id, whatever branches say by then.
    "uploadpack.allowFilter": "true",
    "receive.shallowUpdate": "true",  # People push from shallow clones too.
    "receive.autogc": "false",  # A collector in the background would outlive the forge.
    "receive.denyDeleteCurrent": "ignore",
}


class GitFailed(Exception):
    """git ended with an error; the text has its command and its words."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a commit. `kind` is blob, tree, commit (a submodule) or symlink; `size` in bytes, 0 for trees."""

    kind: str
    sha: str
    size: int
    path: str


@dataclass(frozen=True, slots=True)
class Difference:
    """From base to head, as a pull request's page counts it."""

    commits: int
    additions: int
    deletions: int
    changed_files: int


class Repositories:
    """All bare repositories below one folder; `full_name` is owner/name, already checked by the caller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, full_name: str) -> Path:
        return self._folder / f"{full_name}.git"

    async def create(self, full_name: str) -> None:
        """A bare repository whose `main` is one empty commit. There already: nothing happens."""
        final = self.path(full_name)
        if final.exists():
            return
        draft = final.with_name(f".{final.name}.new")  # A killed forge leaves no half of a repository.
        shutil.rmtree(draft, ignore_errors=True)
        await _git(None, "init", "--quiet", "--bare", f"--initial-branch={DEFAULT_BRANCH}", str(draft))
        with (draft / "config").open("a") as config:
            config.writelines(
                f"[{name.partition('.')[0]}]\n\t{name.partition('.')[2]} = {v}\n" for name, v in _CONFIG.items()
            )
        await _git(draft, "hash-object", "-w", "-t", "tree", "/dev/null")
        root = await _git(draft, "commit-tree", "-m", "Start", EMPTY_TREE)
        await _git(draft, "update-ref", f"refs/heads/{DEFAULT_BRANCH}", root.decode().strip())
        draft.rename(final)

    async def branch(self, full_name: str, branch: str) -> str | None:
        """The commit a branch points at; None when there is no such branch."""
        return await self._resolve(full_name, f"refs/heads/{branch}")

    async def commit(self, full_name: str, ref: str) -> str | None:
        """The commit of a 40-digit id, a branch or a tag; None when there is none."""
        if _SHA.fullmatch(ref):
            return await self._resolve(full_name, ref)
        return await self._resolve(full_name, f"refs/heads/{ref}") or await self._resolve(full_name, f"refs/tags/{ref}")

    async def entry(self, full_name: str, sha: str, path: str) -> Entry | None:
        """What lies at `path` in a commit; "" is the root folder."""
        if not path:
            return Entry("tree", sha, 0, "")
        found = await self._list(full_name, sha, path)
        return next((e for e in found if e.path == path), None)

    async def folder(self, full_name: str, sha: str, path: str) -> list[Entry]:
        """What lies in the folder at `path`."""
        return await self._list(full_name, sha, f"{path}/" if path else "")

    async def blob(self, full_name: str, sha: str) -> bytes:
        return await _git(self.path(full_name), "cat-file", "blob", sha)

    async def difference(self, full_name: str, base: str, head: str) -> Difference:
        """Commits of head that base has not, and what differs between the two trees."""
        path = self.path(full_name)
        commits = await _git(path, "rev-list", "--count", f"{base}..{head}")
        text = await _git(path, "diff", "--shortstat", "--no-renames", base, head)
        return Difference(
            commits=int(commits),
            additions=_count(text, rb"(\d+) insertion"),
            deletions=_count(text, rb"(\d+) deletion"),
            changed_files=_count(text, rb"(\d+) file"),
        )

    async def advertise(self, full_name: str, service: str, protocol: str) -> bytes:
        """The first answer of `upload-pack` or `receive-pack` over smart HTTP: what the repository has."""
        return await _git(self.path(full_name), service, "--stateless-rpc", "--advertise-refs", ".", protocol=protocol)

    async def converse(
        self,
        full_name: str,
        service: str,
        protocol: str,
        request: AsyncIterator[bytes],
        emit: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """One request to `upload-pack` or `receive-pack`, streamed both ways. Raises TimeoutError at the limit."""
        async with (
            _running(self.path(full_name), [service, "--stateless-rpc", "."], protocol) as process,
            asyncio.timeout(TRANSFER_TIMEOUT_S),
            asyncio.TaskGroup() as group,
        ):
            # Its exit code is not asked: git tells its own client what went wrong, in the stream.
            group.create_task(_feed(process, request))
            group.create_task(_drain(process, emit))

    async def _resolve(self, full_name: str, name: str) -> str | None:
        try:
            found = await _git(self.path(full_name), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except GitFailed:
            return None  # With --quiet that is git's way to say "no such commit".
        return found.decode().strip()

    async def _list(self, full_name: str, sha: str, path: str) -> list[Entry]:
        arguments = ["ls-tree", "-z", "--long", "--full-tree", sha, *(["--", path] if path else [])]
        listing = await _git(self.path(full_name), *arguments)
        return [_entry(line) for line in listing.split(b"\0") if line]


def _entry(line: bytes) -> Entry:
    """`<mode> <type> <sha> <size>\\t<path>`; git calls a symlink a blob of mode 120000."""
    facts, _, path = line.partition(b"\t")
    mode, kind, sha, size = facts.decode().split()
    return Entry(
        kind="symlink" if mode == "120000" else kind,
        sha=sha,
        size=0 if size == "-" else int(size),
        path=path.decode(errors="replace"),
    )


def _count(text: bytes, pattern: bytes) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


async def _git(cwd: Path | None, *arguments: str, protocol: str = "") -> bytes:
    """git's output. Raises GitFailed with its last words when it fails or takes over GIT_TIMEOUT_S."""
    async with _running(cwd, list(arguments), protocol, errors=asyncio.subprocess.PIPE) as process:
        try:
            async with asyncio.timeout(GIT_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise GitFailed(f"git {' '.join(arguments)} in {cwd} took over {GIT_TIMEOUT_S:.0f} s") from error
    if process.returncode != 0:
        raise GitFailed(f"git {' '.join(arguments)} in {cwd}: exit {process.returncode}, {err.decode()[-500:].strip()}")
    return out


@contextlib.asynccontextmanager
async def _running(
    cwd: Path | None, arguments: list[str], protocol: str, errors: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A git process that does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        "git",
        "--literal-pathspecs",
        *arguments,
        cwd=cwd,
        env=_environment(protocol),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


def _environment(protocol: str) -> dict[str, str]:
    who = {"NAME": "Stagely forge", "EMAIL": "forge@localhost", "DATE": "2020-01-01T00:00:00Z"}
    env = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    env |= {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nonexistent", "GIT_PROTOCOL": protocol}
    # No hooks, aliases or filters of the user or the machine; a repository here belongs to whoever runs the forge.
    return env | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "0"}


async def _feed(process: asyncio.subprocess.Process, request: AsyncIterator[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # git had heard enough; its answer says why.
        async for chunk in request:
            process.stdin.write(chunk)
            await process.stdin.drain()
    process.stdin.close()


async def _drain(process: asyncio.subprocess.Process, emit: Callable[[bytes], Awaitable[None]]) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.read(CHUNK_BYTES):
        await emit(chunk)
    await process.wait()
