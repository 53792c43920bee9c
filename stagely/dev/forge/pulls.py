"""Pull requests: what opens, moves, closes and reopens them, and the webhook that each of these sends."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from stagely.dev.forge.git import Difference, Repositories
from stagely.dev.forge.outbox import Outbox
from stagely.dev.forge.refusal import invalid, not_found
from stagely.dev.forge.rows import Pull, Repository
from stagely.dev.forge.shapes import Json, Shapes
from stagely.dev.forge.store import Store


@dataclass(frozen=True, slots=True)
class NewPull:
    """`number` None takes the next free one."""

    title: str
    body: str
    head: str
    base: str
    draft: bool
    number: int | None


class Pulls:
    """One change of a repository at a time. The row and its webhook are written together or not at all."""

    def __init__(self, store: Store, repositories: Repositories, shapes: Shapes, outbox: Outbox) -> None:
        self._store = store
        self._git = repositories
        self._shapes = shapes
        self._outbox = outbox
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def json(self, repository: Repository, pull: Pull) -> Json:
        return self._shapes.pull(repository, pull, self._comment_count(pull))

    def get(self, repository: Repository, number: int) -> Pull:
        pull = self._store.pull(repository.id, number)
        if pull is None:
            raise not_found()
        return pull

    async def open(self, repository: Repository, new: NewPull) -> Pull:
        async with self._locks[repository.id]:
            head_sha, base_sha = await self._ends(repository, new)
            self._refuse_second(repository, new.head, new.base)
            size = await self._git.difference(repository.full_name, base_sha, head_sha)
            try:
                return self._add(repository, new, head_sha, base_sha, size)
            except sqlite3.IntegrityError as error:
                raise invalid("number", f"Pull request {new.number} exists already; ask for another number.") from error

    async def set_state(self, repository: Repository, number: int, state: str) -> Pull:
        """`state` is open or closed. In that state already: nothing happens."""
        async with self._locks[repository.id]:
            pull = self.get(repository, number)
            if pull.state == state:
                return pull
            return self._close(repository, pull) if state == "closed" else await self._reopen(repository, pull)

    async def look(self, repository: Repository) -> None:
        """After a push: an open pull request follows its branch, and ends with it. Nothing new: nothing happens."""
        async with self._locks[repository.id]:
            for pull in self._store.pulls(repository.id):
                if pull.state == "open":
                    await self._follow(repository, pull)

    async def _follow(self, repository: Repository, pull: Pull) -> None:
        sha = await self._git.branch(repository.full_name, pull.head_ref)
        if sha is None:
            self._close(repository, pull)
        elif sha != pull.head_sha:
            size = await self._git.difference(repository.full_name, pull.base_sha, sha)
            self._note("synchronize", repository, pull, {"head_sha": sha, **_columns(size)}, before=pull.head_sha)

    async def _ends(self, repository: Repository, new: NewPull) -> tuple[str, str]:
        head = await self._git.branch(repository.full_name, new.head)
        base = await self._git.branch(repository.full_name, new.base)
        if head is None:
            raise invalid("head", f"There is no branch {new.head!r} in {repository.full_name}; push it first.")
        if base is None:
            raise invalid("base", f"There is no branch {new.base!r} in {repository.full_name}.")
        if head == base:
            raise invalid("head", f"No commits between {new.base} and {new.head}")
        return head, base

    def _refuse_second(self, repository: Repository, head: str, base: str) -> None:
        for pull in self._store.pulls(repository.id):
            if (pull.state, pull.head_ref, pull.base_ref) == ("open", head, base):
                raise invalid("head", f"A pull request already exists for {repository.owner}:{head}: {pull.number}.")

    def _add(self, repository: Repository, new: NewPull, head_sha: str, base_sha: str, size: Difference) -> Pull:
        with self._store.transaction():
            pull = self._store.add_pull(
                repository.id,
                new.number,
                title=new.title,
                body=new.body,
                draft=new.draft,
                head_ref=new.head,
                head_sha=head_sha,
                base_ref=new.base,
                base_sha=base_sha,
                **_columns(size),
            )
            self._announce("opened", repository, pull)
        return pull

    def _close(self, repository: Repository, pull: Pull) -> Pull:
        return self._note("closed", repository, pull, {"state": "closed", "closed_at": self._store.now()})

    async def _reopen(self, repository: Repository, pull: Pull) -> Pull:
        self._refuse_second(repository, pull.head_ref, pull.base_ref)
        sha = await self._git.branch(repository.full_name, pull.head_ref)
        if sha is None:
            raise invalid("state", f"state cannot be changed. The {pull.head_ref} branch has been deleted.")
        size = await self._git.difference(repository.full_name, pull.base_sha, sha)
        columns: dict[str, str | float] = {"state": "open", "closed_at": 0.0, "head_sha": sha, **_columns(size)}
        return self._note("reopened", repository, pull, columns)

    def _note(
        self, action: str, repository: Repository, pull: Pull, columns: Mapping[str, str | float], *, before: str = ""
    ) -> Pull:
        with self._store.transaction():
            changed = self._store.change_pull(pull.id, **columns)
            self._announce(action, repository, changed, before)
        return changed

    def _announce(self, action: str, repository: Repository, pull: Pull, before: str = "") -> None:
        count, installation = self._comment_count(pull), self._store.installation_id()
        body = self._shapes.pull_event(action, repository, pull, count, installation, before)
        self._outbox.put("pull_request", body)

    def _comment_count(self, pull: Pull) -> int:
        return len(self._store.comments(pull.repository_id, pull.number))


def _columns(size: Difference) -> dict[str, int]:
    return {
        "commits": size.commits,
        "additions": size.additions,
        "deletions": size.deletions,
        "changed_files": size.changed_files,
    }
