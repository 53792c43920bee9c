"""GitHub's REST for an App about itself: its installation, and tokens for it."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stagely.dev.forge.config import OWNER
from stagely.dev.forge.parts import Parts, read
from stagely.dev.forge.refusal import Refused, not_found
from stagely.dev.forge.rows import Repository


class _TokenBody(BaseModel):
    repositories: list[str] | None = None
    repository_ids: list[int] | None = None
    permissions: dict[str, str] | None = None


class AppRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        one = "/app/installations/{installation:int}"
        return [
            Route("/app", self.app),
            Route(one, self.installation),
            Route(f"{one}/access_tokens", self.sell_token, methods=["POST"]),
            Route("/repos/{owner}/{repo}/installation", self.repository_installation),
        ]

    async def app(self, request: Request) -> Response:
        self._require_app(request)
        return JSONResponse(self._parts.shapes.app())

    async def installation(self, request: Request) -> Response:
        self._require_app(request)
        return JSONResponse(self._parts.shapes.installation(self._the_installation(request)))

    async def repository_installation(self, request: Request) -> Response:
        self._require_app(request)
        self._parts.known(request)
        return JSONResponse(self._parts.shapes.installation(self._parts.store.installation_id()))

    async def sell_token(self, request: Request) -> Response:
        self._require_app(request)
        self._the_installation(request)
        body = await read(request, _TokenBody)
        chosen = self._chosen(body)
        token, grant = self._parts.access.sell(body.permissions, chosen)
        return JSONResponse(self._parts.shapes.token(token, grant, chosen), 201)

    def _chosen(self, body: _TokenBody) -> list[Repository] | None:
        if body.repositories is None and body.repository_ids is None:
            return None
        every = self._parts.store.repositories()
        names, ids = body.repositories or [], body.repository_ids or []
        chosen = [r for r in every if (r.owner == OWNER and r.name in names) or r.id in ids]
        if len(chosen) < len(set(names)) or len(chosen) < len(set(ids)):
            raise Refused(
                422,
                "There is at least one repository that does not exist or is not accessible to the parent installation.",
            )
        return chosen

    def _require_app(self, request: Request) -> None:
        if not self._parts.asker(request).is_app:
            raise Refused(401, "A JSON web token could not be decoded")

    def _the_installation(self, request: Request) -> int:
        wanted = int(request.path_params["installation"])
        if wanted != self._parts.store.installation_id():
            raise not_found()
        return wanted
