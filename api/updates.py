"""What a person asks of an environment, as an update of its workflow: done, refused, or not answered in time."""

from __future__ import annotations

import asyncio

from temporalio.client import Client, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from api.clients import TEMPORAL_ERRORS, is_unknown_workflow
from api.problems import Refusal
from stagely.db.queries.environments import EnvironmentView
from stagely.errors import Conflict, Unavailable
from stagely.logs import get_logger
from stagely.temporal import CALL_TIMEOUT_S
from workflows.messages import (
    ApproveRequest,
    Asked,
    ExtendRequest,
    PinRequest,
    RedeployRequest,
    RetryRequest,
    StopRequest,
    environment_workflow_id,
)

UpdateRequest = ExtendRequest | PinRequest | RedeployRequest | RetryRequest | StopRequest | ApproveRequest

_UPDATE: dict[type[UpdateRequest], str] = {
    ExtendRequest: "extend",
    PinRequest: "pin",
    RedeployRequest: "redeploy",
    RetryRequest: "retry",
    StopRequest: "stop",
    ApproveRequest: "approve",
}
_STATUS = {
    "ending": 409,
    "not_ready": 409,
    "nothing_failed": 409,
    "not_waiting": 409,
    "head_moved": 409,
    "awaiting_approval": 409,
    "too_long": 422,
}
"""The validators' codes; any other failure of an update is a mistake of ours."""
_BUSY = "as many actions as may (10) wait for this environment's workflow already; try again in a moment"

log = get_logger()


class WorkflowEnded(Conflict):
    """Nothing follows the pull request: its workflow has ended, or was terminated."""


async def ask(client: Client, view: EnvironmentView, action: str, request: UpdateRequest, key: str) -> Asked | None:
    """What the environment's workflow answers; None: not in time (no worker), and it may still be done.

    The same `action` and `key` again have one effect and the first answer, whatever `request` says, as long as the
    workflow does not continue as new in between.

    Raises:
        Refusal: with the validator's code and text; 429 when too many wait already.
        WorkflowEnded: there is nobody to ask.
        Unavailable: Temporal does not answer; the same key is safe.
    """
    handle = client.get_workflow_handle(environment_workflow_id(view.project.id, view.pr))
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            # An id is unique among all updates of a run: the same key of two kinds of action must not meet.
            update_id = f"{action}/{key}"
            answer = await handle.execute_update(_UPDATE[type(request)], request, id=update_id, result_type=Asked)
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        return None
    except WorkflowUpdateFailedError as error:
        raise _refused(error, view) from error
    except TEMPORAL_ERRORS as error:
        raise _not_asked(error, view, key) from error
    assert isinstance(answer, Asked)
    return answer


def away(key: str) -> Unavailable:
    return Unavailable(f"Temporal does not answer; try again in a moment with the same Idempotency-Key ({key})")


def _refused(error: WorkflowUpdateFailedError, view: EnvironmentView) -> Refusal:
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type in _STATUS:
        return Refusal(_STATUS[cause.type], cause.type, cause.message)
    log.error("update failed", environment_id=view.id, error_code="internal", reason=str(cause)[:200])
    return Refusal(500, "internal", "an error of ours in the environment's workflow; the api's log names it")


def _not_asked(error: Exception, view: EnvironmentView, key: str) -> Exception:
    if is_unknown_workflow(error):
        return WorkflowEnded(f"nothing runs for environment {view.id} any more. A redeploy or a push starts it again.")
    if isinstance(error, RPCError) and error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return Refusal(429, "too_many_updates", _BUSY)
    return away(key)
