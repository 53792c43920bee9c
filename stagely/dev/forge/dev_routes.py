"""What GitHub has no REST for: making local repositories, looking at deliveries, bad days. Admin token only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stagely.dev.forge.config import OWNER
from stagely.dev.forge.faults import Fault
from stagely.dev.forge.parts import Parts, read
from stagely.dev.forge.refusal import invalid, not_found
from stagely.dev.forge.rows import Delivery
from stagely.dev.forge.shapes import Json

# GitHub's rule for repository names, without leading dots: the name is a folder here.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class _RepositoryBody(BaseModel):
    name: str


class DevRoutes:
    def __init__(self, parts: Parts, plan_fault: Callable[[Fault], None]) -> None:
        self._parts = parts
        self._plan_fault = plan_fault
        self._making = asyncio.Lock()

    def routes(self) -> list[Route]:
        return [
            Route("/_dev/healthz", self.healthz),
            Route("/_dev/repos", self.ensure_repository, methods=["POST"]),
            Route("/_dev/deliveries", self.deliveries),
            Route("/_dev/deliveries/{delivery:int}/attempts", self.redeliver, methods=["POST"]),
            Route("/_dev/faults", self.faults, methods=["POST"]),
            Route("/_dev/reinstall", self.reinstall, methods=["POST"]),
        ]

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ensure_repository(self, request: Request) -> Response:
        """201 when it was made, 200 when it was there."""
        self._parts.person(request)
        name = (await read(request, _RepositoryBody)).name
        if not NAME.fullmatch(name) or name.endswith((".git", ".")):
            raise invalid("name", f"A repository's name has letters, digits, '-', '_' and '.', got {name!r}.")
        async with self._making:
            is_new = self._parts.store.repository(OWNER, name) is None
            await self._parts.git.create(f"{OWNER}/{name}")
            repository = self._parts.store.add_repository(OWNER, name)
        return JSONResponse(self._parts.shapes.full_repository(repository), 201 if is_new else 200)

    async def deliveries(self, request: Request) -> Response:
        self._parts.person(request)
        return JSONResponse([_shown(d) for d in self._parts.store.deliveries()])

    async def redeliver(self, request: Request) -> Response:
        self._parts.person(request)
        old = self._parts.store.delivery(request.path_params["delivery"])
        if old is None:
            raise not_found()
        return JSONResponse(_shown(self._parts.outbox.put_again(old)), 202)

    async def faults(self, request: Request) -> Response:
        self._parts.person(request)
        self._plan_fault(await read(request, Fault))
        return Response(status_code=204)

    async def reinstall(self, request: Request) -> Response:
        """The App is removed from the account and installed anew: other installation id, all tokens void."""
        self._parts.person(request)
        return JSONResponse({"id": self._parts.store.reinstall()})


def _shown(delivery: Delivery) -> Json:
    names = ("id", "guid", "event", "action", "redelivery", "status_code", "error", "duration_s", "created_at")
    return {name: getattr(delivery, name) for name in names} | {"body": delivery.body.decode()}
