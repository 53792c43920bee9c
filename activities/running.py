"""Temporal as activities ask it: which workflows run, and a signal that starts what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from stagely.errors import Unavailable
from stagely.temporal import CALL_TIMEOUT_S
from workflows.messages import (
    WORKFLOW_QUEUE,
    EnvironmentInput,
    PullRequestEvent,
    Timings,
    environment_workflow_id,
)

AT_ONCE = 16  # Describes under way: a thousand of them then take seconds, and the server notices little.
_WORKFLOW = "EnvironmentWorkflow"


async def not_running(client: Client, workflow_ids: Collection[str]) -> set[str]:
    """Those ids under which nothing runs now. Asked one by one: the visibility list lags (8 of 50 were missing).

    Raises Unavailable.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def rests(workflow_id: str) -> bool:
        async with gate, _deadline(f"describe {workflow_id}"):
            return await _status(client, workflow_id) is not WorkflowExecutionStatus.RUNNING

    async with asyncio.TaskGroup() as group:
        asked = {one: group.create_task(rests(one)) for one in workflow_ids}
    return {one for one, task in asked.items() if task.result()}


async def look_at_pull_request(
    client: Client, timings: Timings, project_id: str, pr: int, event: PullRequestEvent
) -> None:
    """Start the pull request's workflow, or signal the one that runs: as the api does with a webhook.

    The same `event.delivery_id` again changes nothing. Raises Unavailable.
    """
    workflow_id = environment_workflow_id(project_id, pr)
    async with _deadline(f"signal {workflow_id}"):
        try:
            await client.start_workflow(
                _WORKFLOW,
                EnvironmentInput(project_id, pr, timings),
                id=workflow_id,
                task_queue=WORKFLOW_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                start_signal="pull_request_event",
                start_signal_args=[event],
                priority=Priority(fairness_key=project_id),
                static_summary=f"pull request {pr}",
            )
        except RPCError as error:
            raise Unavailable(f"Temporal did not take the signal to {workflow_id}: {error}. Try again.") from error


async def _status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    """Of the newest run; None when there never was one, or it is forgotten."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise Unavailable(f"Temporal did not say whether {workflow_id} runs: {error}. Try again.") from error


@asynccontextmanager
async def _deadline(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise Unavailable(f"Temporal took more than {CALL_TIMEOUT_S:.0f} s for: {what}. Try again.") from error
