"""`POST /v1/api/environments/{id}/ACTION`: what people may ask of an environment.

Each action is an update of the environment's workflow, which alone decides. The header `Idempotency-Key` names one
intention: whoever did not get an answer asks again with the same key, and it is done once.
"""

# No postponed annotations here: FastAPI reads them, and they name what is local to `router`.

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from api import updates
from api.auth import OwnerOf
from api.clients import TEMPORAL_ERRORS
from api.dispatch import signal_with_start
from api.problems import Refusal
from api.schemas import ActionAnswer, Approval, Extension, Pinning, Problem
from api.services import Services
from api.updates import UpdateRequest, WorkflowEnded
from stagely.db.queries import environments
from stagely.db.queries.environments import Delivery, EnvironmentFilter, EnvironmentView, TokenView
from stagely.errors import Conflict, StagelyError
from stagely.ids import mint
from stagely.logs import get_logger
from stagely.states import GONE
from stagely.temporal import CALL_TIMEOUT_S
from workflows.messages import ApproveRequest, ExtendRequest, PinRequest, RedeployRequest, RetryRequest, StopRequest

_KEY = r"^[A-Za-z0-9._~-]{1,128}$"  # A UUID, or any word; it becomes a part of ids in Temporal.

log = get_logger()


@dataclass(frozen=True, slots=True)
class Asking:
    """One request: of which environment, by whom, under which key; and the response, for its status."""

    environment_id: str
    who: TokenView
    key: str
    response: Response

    @property
    def by(self) -> str:
        return f"{self.who.team_id}/{self.who.name}"


def router(services: Services, owner: OwnerOf) -> APIRouter:
    routes = APIRouter(
        prefix="/v1/api/environments/{environment_id}",
        tags=["actions"],
        responses={202: {"model": ActionAnswer}, **{code: {"model": Problem} for code in (404, 409, 422, 429, 503)}},
    )

    async def asking(
        environment_id: str,
        response: Response,
        who: Annotated[TokenView, Depends(owner)],
        idempotency_key: Annotated[str | None, Header(pattern=_KEY)] = None,
    ) -> Asking:
        return Asking(environment_id, who, idempotency_key or mint("ask", 21), response)

    Asked = Annotated[Asking, Depends(asking)]
    actions = Actions(services)

    @routes.post("/extend")
    async def extend(body: Extension, asked: Asked) -> ActionAnswer:
        """Move the end of the preview's time, to 30 days ahead at most."""
        return await actions.update(asked, "extend", ExtendRequest(body.length_s, asked.by))

    @routes.post("/pin")
    async def pin(asked: Asked, body: Pinning | None = None) -> ActionAnswer:
        """Keep the preview until its pull request closes."""
        return await actions.pin(asked, (body or Pinning()).pinned)

    @routes.post("/unpin")
    async def unpin(asked: Asked) -> ActionAnswer:
        """Count the preview's time again, from now."""
        return await actions.pin(asked, False)

    @routes.post("/redeploy")
    async def redeploy(asked: Asked) -> ActionAnswer:
        """Build and deploy the pull request's head once more; of an environment that ended: start a new one."""
        return await actions.redeploy(asked)

    @routes.post("/retry")
    async def retry(asked: Asked) -> ActionAnswer:
        """Go on from the step at which the last push failed; what was built is not built again."""
        return await actions.update(asked, "retry", RetryRequest(asked.by))

    @routes.post("/stop")
    async def stop(asked: Asked) -> ActionAnswer:
        """End this environment though its pull request is open. Asking twice is the same as asking once."""
        return await actions.update(asked, "stop", StopRequest(asked.by))

    @routes.post("/approve")
    async def approve(body: Approval, asked: Asked) -> ActionAnswer:
        """Let the commit of an outsider that waits be built and run."""
        return await actions.update(asked, "approve", ApproveRequest(body.sha, asked.by))

    return routes


class Actions:
    """Takes each action to the workflow, and writes one log line about it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def pin(self, asked: Asking, pinned: bool) -> ActionAnswer:
        return await self.update(asked, "pin" if pinned else "unpin", PinRequest(pinned, asked.by))

    async def update(self, asked: Asking, action: str, request: UpdateRequest) -> ActionAnswer:
        """Raises Refusal, Conflict (it has ended), NotFound, Unavailable."""
        view = await self._view(asked)
        with _refusals_noted(asked, view, action):
            _refuse_gone(view)
            return await self._ask(asked, view, action, request)

    async def redeploy(self, asked: Asking) -> ActionAnswer:
        """Raises as `update` does, but for Conflict only when the pull request has a newer environment."""
        view = await self._view(asked)
        with _refusals_noted(asked, view, "redeploy"):
            if view.state in GONE:
                return await self._start(asked, view)
            try:
                return await self._ask(asked, view, "redeploy", RedeployRequest(asked.by))
            except WorkflowEnded:
                # Its workflow was terminated while the environment lived. A new one takes over what its row knows.
                return await self._start(asked, view)

    async def _view(self, asked: Asking) -> EnvironmentView:
        return await environments.get_environment(self._services.engine, asked.who.team_id, asked.environment_id)

    async def _ask(self, asked: Asking, view: EnvironmentView, action: str, request: UpdateRequest) -> ActionAnswer:
        done = await updates.ask(self._services.temporal, view, action, request, asked.key)
        if done is None:
            return _answer(asked, view, action, ActionAnswer(update_id=asked.key, outcome="unanswered"))
        answer = ActionAnswer(update_id=asked.key, outcome="done", expires_at=done.expires_at, is_pinned=done.is_pinned)
        return _answer(asked, view, action, answer)

    async def _start(self, asked: Asking, view: EnvironmentView) -> ActionAnswer:
        """Wake the pull request's workflow as a webhook does; it looks whether the pull request is open."""
        await self._refuse_outdated(view)
        event = Delivery(f"redeploy/{asked.key}", "redeploy", view.project.id, view.pr, datetime.now(UTC))
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await signal_with_start(self._services, event)
        except TEMPORAL_ERRORS as error:
            raise updates.away(asked.key) from error
        return _answer(asked, view, "redeploy", ActionAnswer(update_id=asked.key, outcome="started"))

    async def _refuse_outdated(self, view: EnvironmentView) -> None:
        """Raises Conflict when another environment of the pull request lives."""
        wanted = EnvironmentFilter(project=view.project.id, pr=view.pr)
        living = await environments.list_environments(self._services.engine, view.project.team_id, wanted)
        if living and living[0].id != view.id:
            raise Conflict(f"environment {view.id} has ended, and {living[0].id} followed it; redeploy that one")


@contextmanager
def _refusals_noted(asked: Asking, view: EnvironmentView, action: str) -> Iterator[None]:
    """What people were denied belongs into the log beside what they got."""
    try:
        yield
    except (Refusal, StagelyError) as error:
        _note(asked, view, action, error.code)
        raise


def _refuse_gone(view: EnvironmentView) -> None:
    if view.state in GONE:
        raise Conflict(f"environment {view.id} has ended ({view.state}). A redeploy or a push brings a new one.")


def _answer(asked: Asking, view: EnvironmentView, action: str, answer: ActionAnswer) -> ActionAnswer:
    asked.response.status_code = 200 if answer.outcome == "done" else 202
    _note(asked, view, action, answer.outcome)
    return answer


def _note(asked: Asking, view: EnvironmentView, action: str, outcome: str) -> None:
    log.info(
        "action asked for",
        action=action,
        outcome=outcome,
        by=asked.by,
        environment_id=view.id,
        project_id=view.project.id,
        pr=view.pr,
        update_id=asked.key,
    )
