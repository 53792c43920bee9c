"""What the forge remembers. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repository:
    id: int
    owner: str
    name: str
    created_at: float

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class Pull:
    """`state` is open or closed; `closed_at` 0 while open. `commits` to `changed_files` compare head with base."""

    id: int
    repository_id: int
    number: int
    title: str
    body: str
    state: str
    draft: bool
    head_ref: str
    head_sha: str
    base_ref: str
    base_sha: str
    created_at: float
    updated_at: float
    closed_at: float
    commits: int
    additions: int
    deletions: int
    changed_files: int


@dataclass(frozen=True, slots=True)
class Comment:
    """`by_app`: written with an installation token, else by the person."""

    id: int
    repository_id: int
    number: int
    body: str
    by_app: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Status:
    id: int
    repository_id: int
    sha: str
    state: str
    context: str
    description: str | None
    target_url: str | None
    by_app: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a webhook. `status_code` None: not tried yet; 0: nobody answered, `error` says why."""

    id: int
    guid: str
    event: str
    action: str
    body: bytes
    redelivery: bool
    created_at: float
    status_code: int | None
    error: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What an installation token allows: permission name to "read" or "write", on these repositories (None: all)."""

    expires_at: float
    permissions: dict[str, str]
    repository_ids: tuple[int, ...] | None
