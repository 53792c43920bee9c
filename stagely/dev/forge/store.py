"""The forge's memory: one SQLite file beside the repositories. Every call takes well under a millisecond.

Write-ahead logging without a sync per commit: what was committed survives `kill -9` of the process, not a power cut.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from stagely.dev.forge.rows import Comment, Delivery, Grant, Pull, Repository, Status

DELIVERIES_KEPT = 3 * 24 * 3600.0  # GitHub docs: a delivery can be sent again for three days.
R = TypeVar("R")

_SCHEMA = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists repositories (
    id integer primary key autoincrement, owner text not null, name text not null, created_at real not null,
    unique (owner, name));
create table if not exists pulls (
    id integer primary key autoincrement, repository_id integer not null, number integer not null, title text not null,
    body text not null, state text not null, draft integer not null, head_ref text not null, head_sha text not null,
    base_ref text not null, base_sha text not null, created_at real not null, updated_at real not null,
    closed_at real not null, commits integer not null, additions integer not null, deletions integer not null,
    changed_files integer not null, unique (repository_id, number));
create table if not exists comments (
    id integer primary key autoincrement, repository_id integer not null, number integer not null, body text not null,
    by_app integer not null, created_at real not null, updated_at real not null);
create table if not exists statuses (
    id integer primary key autoincrement, repository_id integer not null, sha text not null, state text not null,
    context text not null, description text, target_url text, by_app integer not null, created_at real not null);
create table if not exists deliveries (
    id integer primary key autoincrement, guid text not null, event text not null, action text not null,
    body blob not null, redelivery integer not null, created_at real not null, status_code integer, error text not null,
    duration_s real not null);
create table if not exists tokens (
    hash text primary key, expires_at real not null, permissions text not null, repository_ids text not null);
"""


class Store:
    """Rows in, rows out; `transaction` makes several writes one."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self.now = now
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes of the block or none. The block must not await: there is one connection."""
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    # --- facts, repositories ---

    def installation_id(self) -> int:
        rows = self._db.execute("select value from facts where name = 'installation'").fetchall()
        return int(rows[0]["value"]) if rows else 1

    def reinstall(self) -> int:
        """A new installation of the App: its id changes and every token of the old one is void."""
        new = self.installation_id() + 1
        with self.transaction():
            self._db.execute("insert or replace into facts values ('installation', ?)", [str(new)])
            self._db.execute("delete from tokens")
        return new

    def add_repository(self, owner: str, name: str) -> Repository:
        """There already: the same one."""
        self._db.execute(
            "insert or ignore into repositories (owner, name, created_at) values (?, ?, ?)", [owner, name, self.now()]
        )
        found = self.repository(owner, name)
        assert found is not None
        return found

    def repository(self, owner: str, name: str) -> Repository | None:
        return self._one(Repository, "select * from repositories where owner = ? and name = ?", owner, name)

    def repositories(self) -> list[Repository]:
        return self._all(Repository, "select * from repositories order by id")

    # --- pull requests ---

    def add_pull(self, repository_id: int, number: int | None, **values: Any) -> Pull:
        """`values` are Pull's columns; `number` None takes the next one. Raises sqlite3.IntegrityError when taken."""
        now = self.now()
        if number is None:
            rows = self._db.execute("select max(number) as top from pulls where repository_id = ?", [repository_id])
            number = (rows.fetchone()["top"] or 0) + 1
        values |= {"repository_id": repository_id, "number": number, "state": "open"}
        values |= {"created_at": now, "updated_at": now, "closed_at": 0.0}
        return self._pull(self._insert("pulls", values))

    def change_pull(self, pull_id: int, **values: Any) -> Pull:
        self._update("pulls", pull_id, values | {"updated_at": self.now()})
        return self._pull(pull_id)

    def pull(self, repository_id: int, number: int) -> Pull | None:
        return self._one(Pull, "select * from pulls where repository_id = ? and number = ?", repository_id, number)

    def pulls(self, repository_id: int) -> list[Pull]:
        """Newest first."""
        return self._all(Pull, "select * from pulls where repository_id = ? order by id desc", repository_id)

    def _pull(self, pull_id: int) -> Pull:
        found = self._one(Pull, "select * from pulls where id = ?", pull_id)
        assert found is not None
        return found

    # --- comments, statuses ---

    def add_comment(self, repository_id: int, number: int, body: str, by_app: bool) -> Comment:
        values = {"repository_id": repository_id, "number": number, "body": body, "by_app": by_app}
        row_id = self._insert("comments", values | {"created_at": self.now(), "updated_at": self.now()})
        found = self.comment(repository_id, row_id)
        assert found is not None
        return found

    def comment(self, repository_id: int, comment_id: int) -> Comment | None:
        return self._one(
            Comment, "select * from comments where repository_id = ? and id = ?", repository_id, comment_id
        )

    def comments(self, repository_id: int, number: int) -> list[Comment]:
        """Oldest first."""
        return self._all(
            Comment, "select * from comments where repository_id = ? and number = ? order by id", repository_id, number
        )

    def change_comment(self, comment_id: int, body: str) -> None:
        self._update("comments", comment_id, {"body": body, "updated_at": self.now()})

    def remove_comment(self, comment_id: int) -> None:
        self._db.execute("delete from comments where id = ?", [comment_id])

    def add_status(self, repository_id: int, sha: str, **values: Any) -> Status:
        """`values` are Status's columns."""
        row_id = self._insert(
            "statuses", values | {"repository_id": repository_id, "sha": sha, "created_at": self.now()}
        )
        found = self._one(Status, "select * from statuses where id = ?", row_id)
        assert found is not None
        return found

    def statuses(self, repository_id: int, sha: str) -> list[Status]:
        """Newest first."""
        return self._all(
            Status, "select * from statuses where repository_id = ? and sha = ? order by id desc", repository_id, sha
        )

    # --- webhooks ---

    def add_delivery(self, guid: str, event: str, action: str, body: bytes, *, redelivery: bool = False) -> Delivery:
        now = self.now()
        self._db.execute("delete from deliveries where created_at < ?", [now - DELIVERIES_KEPT])
        values = {"guid": guid, "event": event, "action": action, "body": body, "redelivery": redelivery}
        row_id = self._insert("deliveries", values | {"created_at": now, "error": "", "duration_s": 0.0})
        found = self.delivery(row_id)
        assert found is not None
        return found

    def delivery(self, delivery_id: int) -> Delivery | None:
        return self._one(Delivery, "select * from deliveries where id = ?", delivery_id)

    def deliveries(self, limit: int = 100) -> list[Delivery]:
        """Newest first."""
        return self._all(Delivery, "select * from deliveries order by id desc limit ?", limit)

    def next_delivery(self) -> Delivery | None:
        """The oldest that was not tried yet."""
        return self._one(Delivery, "select * from deliveries where status_code is null order by id limit 1")

    def set_delivered(self, delivery_id: int, status_code: int, error: str, duration_s: float) -> None:
        self._update("deliveries", delivery_id, {"status_code": status_code, "error": error, "duration_s": duration_s})

    # --- installation tokens ---

    def add_token(self, token: str, grant: Grant) -> None:
        ids = json.dumps(grant.repository_ids)
        self._db.execute("delete from tokens where expires_at < ?", [self.now()])
        self._db.execute(
            "insert into tokens values (?, ?, ?, ?)",
            [_hash(token), grant.expires_at, json.dumps(grant.permissions), ids],
        )

    def grant(self, token: str) -> Grant | None:
        """What the token allows; None when it is unknown or at its end."""
        row = self._db.execute("select * from tokens where hash = ?", [_hash(token)]).fetchone()
        if row is None or row["expires_at"] <= self.now():
            return None
        ids = json.loads(row["repository_ids"])
        return Grant(row["expires_at"], json.loads(row["permissions"]), None if ids is None else tuple(ids))

    # --- SQL; table and column names come from this package only ---

    def _insert(self, table: str, values: dict[str, Any]) -> int:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self._db.execute(f"insert into {table} ({names}) values ({marks})", list(values.values()))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _update(self, table: str, row_id: int, values: dict[str, Any]) -> None:
        pairs = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(f"update {table} set {pairs} where id = ?", [*values.values(), row_id])

    def _one(self, kind: type[R], sql: str, *values: Any) -> R | None:
        rows = self._all(kind, sql, *values)
        return rows[0] if rows else None

    def _all(self, kind: type[R], sql: str, *values: Any) -> list[R]:
        """`Any`: SQLite's value types, and `fields` wants a dataclass type that cannot be spelled."""
        columns = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
        rows = self._db.execute(sql, values).fetchall()
        return [kind(**{n: bool(row[n]) if t == "bool" else row[n] for n, t in columns.items()}) for row in rows]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
