"""GitHub's REST for what is said about a pull request: comments, and statuses of commits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stagely.dev.forge.parts import Parts, paged, read
from stagely.dev.forge.refusal import Refused, not_found
from stagely.dev.forge.rows import Comment, Repository, Status
from stagely.dev.forge.shapes import Json

LONGEST_COMMENT = 65536  # GitHub answers 422 to a longer one.
LONGEST_DESCRIPTION = 140


class _CommentBody(BaseModel):
    body: str = Field(min_length=1, max_length=LONGEST_COMMENT)


class _StatusBody(BaseModel):
    state: Literal["error", "failure", "pending", "success"]
    context: str = "default"
    description: str | None = Field(None, max_length=LONGEST_DESCRIPTION)
    target_url: str | None = None


class TalkRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        repo = "/repos/{owner}/{repo}"
        return [
            Route(f"{repo}/issues/{{number:int}}/comments", self.comments, methods=["GET"]),
            Route(f"{repo}/issues/{{number:int}}/comments", self.add_comment, methods=["POST"]),
            Route(f"{repo}/issues/comments/{{comment:int}}", self.comment, methods=["GET"]),
            Route(f"{repo}/issues/comments/{{comment:int}}", self.change_comment, methods=["PATCH"]),
            Route(f"{repo}/issues/comments/{{comment:int}}", self.remove_comment, methods=["DELETE"]),
            Route(f"{repo}/statuses/{{sha}}", self.add_status, methods=["POST"]),
            Route(f"{repo}/commits/{{ref:path}}/statuses", self.statuses),
            Route(f"{repo}/commits/{{ref:path}}/status", self.combined_status),
        ]

    async def comments(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests")
        pull = self._parts.pulls.get(repository, request.path_params["number"])
        rows = self._parts.store.comments(repository.id, pull.number)
        return paged(request, [self._parts.shapes.comment(repository, c) for c in rows])

    async def add_comment(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests", "write")
        pull = self._parts.pulls.get(repository, request.path_params["number"])
        body = await read(request, _CommentBody)
        by_app = self._parts.asker(request).is_installation
        comment = self._parts.store.add_comment(repository.id, pull.number, body.body, by_app)
        shown = self._parts.shapes.comment(repository, comment)
        return JSONResponse(shown, 201, headers={"Location": shown["url"]})

    async def comment(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests")
        return JSONResponse(self._parts.shapes.comment(repository, self._comment(request, repository)))

    async def change_comment(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests", "write")
        comment = self._comment(request, repository)
        self._parts.store.change_comment(comment.id, (await read(request, _CommentBody)).body)
        return JSONResponse(self._parts.shapes.comment(repository, self._comment(request, repository)))

    async def remove_comment(self, request: Request) -> Response:
        repository = self._parts.repository(request, "pull_requests", "write")
        self._parts.store.remove_comment(self._comment(request, repository).id)
        return Response(status_code=204)

    async def add_status(self, request: Request) -> Response:
        repository = self._parts.repository(request, "statuses", "write")
        body = await read(request, _StatusBody)
        sha = await self._parts.git.commit(repository.full_name, request.path_params["sha"])
        if sha is None:
            raise Refused(422, f"No commit found for SHA: {request.path_params['sha']}")
        by_app = self._parts.asker(request).is_installation
        status = self._parts.store.add_status(repository.id, sha, by_app=by_app, **body.model_dump())
        shown = self._parts.shapes.status(repository, status)
        return JSONResponse(shown, 201, headers={"Location": shown["url"]})

    async def statuses(self, request: Request) -> Response:
        repository, _, rows = await self._statuses(request)
        return paged(request, [self._parts.shapes.status(repository, s) for s in rows])

    async def combined_status(self, request: Request) -> Response:
        """The newest of every context, and what they are together."""
        repository, sha, rows = await self._statuses(request)
        newest = list({s.context: s for s in reversed(rows)}.values())
        url = f"{self._parts.shapes.url}/repos/{repository.full_name}/commits/{sha}"
        answer: Json = {
            "state": _together({s.state for s in newest}),
            "statuses": [self._parts.shapes.status(repository, s) for s in newest],
            "sha": sha,
            "total_count": len(newest),
            "repository": self._parts.shapes.repository(repository),
            "commit_url": url,
            "url": f"{url}/status",
        }
        return JSONResponse(answer)

    async def _statuses(self, request: Request) -> tuple[Repository, str, list[Status]]:
        repository = self._parts.repository(request, "statuses")
        sha = await self._parts.git.commit(repository.full_name, request.path_params["ref"])
        if sha is None:
            raise not_found()
        return repository, sha, self._parts.store.statuses(repository.id, sha)

    def _comment(self, request: Request, repository: Repository) -> Comment:
        found = self._parts.store.comment(repository.id, request.path_params["comment"])
        if found is None:
            raise not_found()
        return found


def _together(states: set[str]) -> str:
    """Source: GitHub docs, "Get the combined status for a specific reference"."""
    if states & {"error", "failure"}:
        return "failure"
    return "pending" if not states or "pending" in states else "success"
