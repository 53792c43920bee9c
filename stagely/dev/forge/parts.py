"""The parts of one forge, made once, and how every route finds its asker, repository and body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from stagely.dev.forge.access import Access, Asker
from stagely.dev.forge.config import ForgeConfig
from stagely.dev.forge.git import Repositories
from stagely.dev.forge.outbox import Outbox
from stagely.dev.forge.pulls import Pulls
from stagely.dev.forge.refusal import Refused, invalid, not_found
from stagely.dev.forge.rows import Repository
from stagely.dev.forge.shapes import Json, Shapes
from stagely.dev.forge.store import Store

M = TypeVar("M", bound=BaseModel)
PAGE = 30  # GitHub docs, "Using pagination": 30 entries, at most 100.
LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Parts:
    config: ForgeConfig
    store: Store
    git: Repositories
    access: Access
    shapes: Shapes
    outbox: Outbox
    pulls: Pulls

    def asker(self, request: Request) -> Asker:
        return self.access.identify(request.headers.get("authorization"))

    def person(self, request: Request) -> None:
        """Raises Refused unless the admin token is there."""
        if not self.asker(request).is_person:
            raise Refused(403, "Only the holder of the admin token may do this")

    def repository(self, request: Request, permission: str, level: str = "read") -> Repository:
        """The repository of the path, when the asker may do this there."""
        asker = self.asker(request)
        repository = self.known(request)
        asker.require(repository, permission, level)
        return repository

    def known(self, request: Request) -> Repository:
        repository = self.store.repository(request.path_params["owner"], request.path_params["repo"])
        if repository is None:
            raise not_found()
        return repository


def make_parts(config: ForgeConfig, now: Callable[[], float]) -> Parts:
    config.folder.mkdir(parents=True, exist_ok=True)
    store = Store(config.folder / "forge.db", now)
    git = Repositories(config.folder / "repositories")
    shapes = Shapes(config.url, config.clone_url, config.app_id)
    outbox = Outbox(config, store)
    pulls = Pulls(store, git, shapes, outbox)
    return Parts(config, store, git, Access(config, store, now), shapes, outbox, pulls)


async def read(request: Request, kind: type[M]) -> M:
    """The body, or Refused as GitHub refuses: 400 for what is no JSON, 422 for a field."""
    raw = await request.body()
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise Refused(400, "Problems parsing JSON") from error
        field = ".".join(map(str, first["loc"])) or "body"
        raise invalid(field, f"{field}: {first['msg']}") from error


def paged(request: Request, rows: Sequence[Json]) -> JSONResponse:
    """One page of the rows and, as GitHub does, the way to the others in `Link`."""
    size = min(_number(request, "per_page", PAGE), LARGEST_PAGE)
    page, last = _number(request, "page", 1), max(1, -(-len(rows) // size))
    ways = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
    shown = {k: n for k, n in ways.items() if 1 <= n <= last and n != page}
    links = [f'<{request.url.include_query_params(page=n, per_page=size)}>; rel="{k}"' for k, n in shown.items()]
    headers = {"Link": ", ".join(links)} if links else None
    return JSONResponse(list(rows[(page - 1) * size : page * size]), headers=headers)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and int(text) > 0 else default
