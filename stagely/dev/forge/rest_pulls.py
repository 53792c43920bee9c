"""GitHub's REST for repositories and pull requests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stagely.dev.forge.config import OWNER
from stagely.dev.forge.parts import Parts, paged, read
from stagely.dev.forge.pulls import NewPull
from stagely.dev.forge.refusal import invalid, not_found
from stagely.dev.forge.rows import Pull

NUMBER_HEADER = "x-stagely-pull-number"  # Not GitHub's: asks for a certain number (`stagely up --pr 7`).
LARGEST_NUMBER = 2**31 - 1


class _NewBody(BaseModel):
    title: str = Field(min_length=1, max_length=256)
    head: str = Field(min_length=1)
    base: str = Field(min_length=1)
    body: str | None = None
    draft: bool = False


class _ChangeBody(BaseModel, extra="forbid"):
    """The one change that the forge takes; any other field is refused rather than forgotten."""

    state: Literal["open", "closed"]


class PullRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        repo = "/repos/{owner}/{repo}"
        return [
            Route(repo, self.repository),
            Route(f"{repo}/pulls", self.pulls, methods=["GET"]),
            Route(f"{repo}/pulls", self.open, methods=["POST"]),
            Route(f"{repo}/pulls/{{number:int}}", self.pull, methods=["GET"]),
            Route(f"{repo}/pulls/{{number:int}}", self.change, methods=["PATCH"]),
            Route(f"{repo}/collaborators/{{user}}/permission", self.permission),
        ]

    async def repository(self, request: Request) -> Response:
        repository = self._parts.repository(request, "metadata")
        return JSONResponse(self._parts.shapes.full_repository(repository))

    async def pulls(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests")
        state, head = request.query_params.get("state", "open"), request.query_params.get("head", "")
        chosen = [p for p in self._parts.store.pulls(repository.id) if _is_wanted(p, state, head)]
        return paged(request, [self._parts.pulls.json(repository, p) for p in chosen])

    async def pull(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests")
        return JSONResponse(
            self._parts.pulls.json(repository, self._parts.pulls.get(repository, request.path_params["number"]))
        )

    async def open(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests", "write")
        body = await read(request, _NewBody)
        head = body.head.removeprefix(f"{OWNER}:")
        new = NewPull(body.title, body.body or "", head, body.base, body.draft, _wanted_number(request))
        shown = self._parts.pulls.json(repository, await self._parts.pulls.open(repository, new))
        return JSONResponse(shown, 201, headers={"Location": shown["url"]})

    async def change(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests", "write")
        body = await read(request, _ChangeBody)
        pull = await self._parts.pulls.set_state(repository, request.path_params["number"], body.state)
        return JSONResponse(self._parts.pulls.json(repository, pull))

    async def permission(self, request: Request) -> Response:
        self._parts.repository(request, "metadata")
        if request.path_params["user"] != OWNER:
            raise not_found()
        return JSONResponse(self._parts.shapes.permission())


def _is_wanted(pull: Pull, state: str, head: str) -> bool:
    return state in ("all", pull.state) and head in ("", f"{OWNER}:{pull.head_ref}")


def _wanted_number(request: Request) -> int | None:
    text = request.headers.get(NUMBER_HEADER)
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_NUMBER:
        raise invalid("number", f"A pull request's number is from 1 to {LARGEST_NUMBER}, got {text!r}.")
    return int(text)
