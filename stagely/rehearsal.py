"""A rehearsal: every run that lives on a server is replayed against this code, before a rollout does it for real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

FETCHES = 20  # Measured: one after the other took twice as long; more gain nothing on two cores.


@dataclass(frozen=True, slots=True)
class Broken:
    """A run that this code cannot go on with. `reason`: one line, the event and the command that do not meet."""

    workflow_id: str
    run_id: str
    workflow_type: str
    reason: str

    def __str__(self) -> str:
        return f"BROKEN {self.workflow_id} ({self.workflow_type}, run {self.run_id}): {self.reason}"


@dataclass(slots=True)
class Rehearsal:
    """`gone`: ended and forgotten by the server while we looked."""

    replayed: int = 0
    gone: int = 0
    broken: list[Broken] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.replayed} runs replayed, {len(self.broken)} broken, {self.gone} gone meanwhile"


async def rehearse(
    client: Client, replayer: Replayer, query: str, limit: int | None, report: Callable[[Broken], None]
) -> Rehearsal:
    """Replay the runs that `query` lists, `limit` of them at most; `report` hears of each broken one at once.

    Nothing on the server changes. The replayer must not encode failures (`temporal.replay_converter`): nobody could
    read why. Histories are fetched while others replay; twice FETCHES of them are held at most.
    Raises an ExceptionGroup with the RPCError of a server that is away or does not take the query.
    """
    done = Rehearsal()
    fetched: asyncio.Queue[WorkflowHistory | None] = asyncio.Queue(FETCHES)
    async with asyncio.TaskGroup() as group:
        group.create_task(_fetch_all(client, query, limit, fetched, done))
        async with replayer.workflow_replay_iterator(_until_end(fetched)) as results:
            async for result in results:
                done.replayed += 1
                if result.replay_failure is not None:
                    broken = _broken(result.history, result.replay_failure)
                    done.broken.append(broken)
                    report(broken)
    return done


async def _fetch_all(
    client: Client, query: str, limit: int | None, fetched: asyncio.Queue[WorkflowHistory | None], done: Rehearsal
) -> None:
    listed: asyncio.Queue[WorkflowExecution | None] = asyncio.Queue(FETCHES)
    async with asyncio.TaskGroup() as group:
        for _ in range(FETCHES):
            group.create_task(_fetch(client, listed, fetched, done))
        async for run in client.list_workflows(query, limit=limit):
            await listed.put(run)
        for _ in range(FETCHES):
            await listed.put(None)
    await fetched.put(None)


async def _fetch(
    client: Client,
    listed: asyncio.Queue[WorkflowExecution | None],
    fetched: asyncio.Queue[WorkflowHistory | None],
    done: Rehearsal,
) -> None:
    """One of several that take from the same list."""
    while (run := await listed.get()) is not None:
        try:
            history = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            done.gone += 1
        else:
            await fetched.put(_as_if_taken(history))


async def _until_end(fetched: asyncio.Queue[WorkflowHistory | None]) -> AsyncIterator[WorkflowHistory]:
    while (history := await fetched.get()) is not None:
        yield history


def _as_if_taken(history: WorkflowHistory) -> WorkflowHistory:
    """A task that waits for a worker counts as done, so that this code runs it too.

    Replay stops at the last completed task. A run that no worker has taken yet would pass without its code being looked
    at, also when that code does not exist any more.
    """
    events = list(history.events)
    if events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
        started = _after(events[-1], EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)
        started.workflow_task_started_event_attributes.scheduled_event_id = events[-1].event_id
        events.append(started)
    if events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
        completed = _after(events[-1], EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
        completed.workflow_task_completed_event_attributes.scheduled_event_id = events[-1].event_id - 1
        completed.workflow_task_completed_event_attributes.started_event_id = events[-1].event_id
        events.append(completed)
    return WorkflowHistory(history.workflow_id, events)


def _after(last: HistoryEvent, kind: EventType.ValueType) -> HistoryEvent:
    return HistoryEvent(event_id=last.event_id + 1, event_time=last.event_time, event_type=kind)


def _broken(history: WorkflowHistory, failure: Exception) -> Broken:
    started = history.events[0].workflow_execution_started_event_attributes
    return Broken(history.workflow_id, history.run_id, started.workflow_type.name, _said(str(failure)))


def _said(text: str) -> str:
    """The message inside the SDK's dump of a failure, or all of it, as one line."""
    found = re.search(r'message: "((?:[^"\\]|\\.)*)"', text)
    return " ".join((found[1] if found else text).split())
