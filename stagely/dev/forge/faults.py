"""GitHub's bad days, on request: `POST /_dev/faults` makes the next calls of the REST API fail as GitHub's do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

SILENCE_S = 60.0  # Longer than any client waits.
_PATHS = ("/repos/", "/app")


class FaultKind(StrEnum):
    PRIMARY_LIMIT = "primary_limit"  # The hour's quota is used up.
    SECONDARY_LIMIT = "secondary_limit"  # Too much at once.
    SECONDARY_LIMIT_BARE = "secondary_limit_bare"  # The same without any header.
    UNAVAILABLE = "unavailable"  # 503 with a page for people.
    NONSENSE = "nonsense"  # 200 with something else than the API's JSON.
    SILENCE = "silence"


class Fault(BaseModel):
    """The next `times` calls whose path contains `path` fail so."""

    kind: FaultKind
    times: int = Field(1, ge=0)
    path: str = ""
    retry_after_s: int = 60


class Faults:
    """Middleware in front of everything; `plan` replaces what was planned."""

    def __init__(self, app: ASGIApp, now: Callable[[], float]) -> None:
        self._app = app
        self._now = now
        self._planned: Fault | None = None

    def plan(self, fault: Fault) -> None:
        self._planned = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._take(scope)
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind is FaultKind.SILENCE:
            await self._wait_for_hang_up(receive)
        else:
            await self._answer(fault)(scope, receive, send)

    def _take(self, scope: Scope) -> Fault | None:
        """The planned fault when it is for this request, once less."""
        fault = self._planned
        if fault is None or scope["type"] != "http" or fault.times == 0:
            return None
        path: str = scope["path"]
        if not path.startswith(_PATHS) or fault.path not in path:
            return None
        fault.times -= 1
        return fault

    def _answer(self, fault: Fault) -> Response:
        """Source: GitHub docs, "Rate limits for the REST API"."""
        reset = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0"}
        match fault.kind:
            case FaultKind.PRIMARY_LIMIT:
                reset["x-ratelimit-reset"] = str(int(self._now()) + fault.retry_after_s)
                return _json(403, "API rate limit exceeded for installation ID 1.", reset)
            case FaultKind.SECONDARY_LIMIT:
                return _json(403, _SECONDARY, {"retry-after": str(fault.retry_after_s)})
            case FaultKind.SECONDARY_LIMIT_BARE:
                return _json(403, _SECONDARY, {})
            case FaultKind.UNAVAILABLE:
                return HTMLResponse("<h1>Unicorn!</h1>", 503)
        return PlainTextResponse("It works!")

    @staticmethod
    async def _wait_for_hang_up(receive: Receive) -> None:
        async with asyncio.timeout(SILENCE_S):
            while (await receive())["type"] != "http.disconnect":
                pass


_SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


def _json(status: int, message: str, headers: dict[str, str]) -> Response:
    body = {"message": message, "documentation_url": "https://docs.github.com/rest/rate-limit", "status": str(status)}
    return JSONResponse(body, status, headers=headers)
