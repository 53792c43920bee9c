"""The few fields of GitHub's answers that Stagely reads, and nothing else of them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, TypeAdapter


class User(BaseModel):
    login: str


class Repository(BaseModel):
    full_name: str


class Branch(BaseModel):
    """One end of a pull request. `repo` is null when the fork was deleted."""

    ref: str
    sha: str
    repo: Repository | None = None


class Pull(BaseModel):
    """`user` is null when the account was deleted."""

    number: int
    state: str
    title: str
    head: Branch
    base: Branch
    merged: bool = False
    draft: bool = False
    user: User | None = None


class ListedPull(BaseModel):
    number: int


class App(BaseModel):
    id: int


class Comment(BaseModel):
    id: int
    body: str | None = None
    performed_via_github_app: App | None = None

    def is_by(self, app_id: str) -> bool:
        return self.performed_via_github_app is not None and str(self.performed_via_github_app.id) == app_id


class Content(BaseModel):
    """A file, symlink or submodule. A symlink to a file of the same repository comes as that file."""

    type: str
    size: int = 0
    encoding: str = ""
    content: str = ""


class Permission(BaseModel):
    permission: str


class Installation(BaseModel):
    id: int


class Token(BaseModel):
    token: str
    expires_at: datetime


class Refusal(BaseModel):
    message: str = ""


PULL = TypeAdapter(Pull)
PULLS = TypeAdapter(list[ListedPull])
COMMENT = TypeAdapter(Comment)
COMMENTS = TypeAdapter(list[Comment])
CONTENT = TypeAdapter[Content | list[object]](Content | list[object])  # A list is a folder.
PERMISSION = TypeAdapter(Permission)
INSTALLATION = TypeAdapter(Installation)
TOKEN = TypeAdapter(Token)
ANYTHING = TypeAdapter(object)
