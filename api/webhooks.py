"""`POST /v1/webhooks/github`: verify, keep, pass on, answer. A webhook is a hint; the workflow looks for itself."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from api.dispatch import Dispatcher
from api.services import Services
from stagely.db.queries import environments
from stagely.db.queries.environments import Delivery
from stagely.errors import Unauthorized
from stagely.logs import get_logger

BODY_LIMIT_BYTES = 25 * 1024 * 1024  # GitHub's own limit of a payload.
DELIVERY_LIMIT = 100
ACTIONS = frozenset(
    {
        "opened", "reopened", "synchronize", "closed", "ready_for_review", "converted_to_draft", "labeled", "unlabeled",
        "edited",
    }
)  # fmt: skip
"""What may change whether and what is deployed."""

log = get_logger()


class _Repository(BaseModel):
    model_config = ConfigDict(extra="ignore")
    full_name: str = Field(max_length=200)


class _PullRequestPayload(BaseModel):
    model_config = ConfigDict(extra="ignore")
    action: str = Field(max_length=50)
    number: int = Field(gt=0, lt=2**31)
    repository: _Repository


class Accepted(BaseModel):
    """`status`: dispatched, stored (Temporal is away; it will be dispatched), duplicate or ignored (see `reason`)."""

    delivery: str
    status: str
    reason: str = ""


def router(services: Services, dispatcher: Dispatcher) -> APIRouter:
    routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

    @routes.post("/github", status_code=202, response_model=Accepted, responses={200: {"description": "Pong"}})
    async def github(request: Request) -> JSONResponse:
        """GitHub's webhooks, signed with the installation's secret."""
        body = await _read(request)
        verify(request.headers.getlist("X-Hub-Signature-256"), body, services.webhook_secret)
        delivery_id = request.headers.get("X-GitHub-Delivery", "")[:DELIVERY_LIMIT]
        event = request.headers.get("X-GitHub-Event", "")
        if event == "ping":
            return _answer(Accepted(delivery=delivery_id, status="pong"), 200)
        if event != "pull_request":
            return _answer(_ignored(delivery_id, f"events of kind {event[:50]!r} change nothing here"))
        payload = _parse(body)
        if not delivery_id:
            raise HTTPException(400, "X-GitHub-Delivery is missing")
        return _answer(await _take(services, dispatcher, delivery_id, payload))

    return routes


def verify(signatures: list[str], body: bytes, secret: str) -> None:
    """Whether GitHub signed these very bytes with our secret. Raises Unauthorized. Takes the same time either way."""
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    given = signatures[0] if len(signatures) == 1 else ""
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise Unauthorized("X-Hub-Signature-256 does not fit this body and our webhook secret; compare the two secrets")


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"a webhook has at most {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


def _parse(body: bytes) -> _PullRequestPayload:
    try:
        return _PullRequestPayload.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"]) or "body"
        raise HTTPException(400, f"{where}: {first['msg']}. Is the webhook's content type application/json?") from error


async def _take(services: Services, dispatcher: Dispatcher, delivery_id: str, payload: _PullRequestPayload) -> Accepted:
    repo = payload.repository.full_name
    if payload.action not in ACTIONS:
        return _ignored(delivery_id, f"{payload.action!r} changes nothing about what is deployed")
    project = await environments.project_of_repository(services.engine, repo)
    if project is None:
        log.warning("webhook ignored", repo=repo, delivery=delivery_id, reason="no project has this repository")
        return _ignored(delivery_id, f"no project has the repository {repo}")
    delivery = Delivery(delivery_id, payload.action, project.id, payload.number, datetime.now(UTC))
    if not await environments.keep_delivery(services.engine, "pull_request", repo, delivery):
        return Accepted(delivery=delivery_id, status="duplicate", reason="this delivery was dispatched before")
    is_sent = await dispatcher.dispatch(delivery)
    return Accepted(delivery=delivery_id, status="dispatched" if is_sent else "stored")


def _ignored(delivery_id: str, reason: str) -> Accepted:
    return Accepted(delivery=delivery_id, status="ignored", reason=reason)


def _answer(accepted: Accepted, status: int = 202) -> JSONResponse:
    return JSONResponse(accepted.model_dump(), status)
