"""Running several things at once in a workflow without losing a clean-up.

`asyncio.gather` returns at the first failure while the others are still cleaning up, `asyncio.TaskGroup` wedges the
workflow task, and a clean-up in `finally` is itself cancelled when a second cancel comes (all three were seen on a
real server). So: `fanout` to run many, `protected` around every clean-up, `start` for a task that is held.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: a coroutine's send and yield types.
    """A task that the caller holds, cancels and awaits: a workflow's cancellation scope."""
    return asyncio.create_task(work)  # noqa: TID251  # TaskGroup wedges a workflow; the caller keeps the handle.


async def settled(task: asyncio.Task[Any]) -> None:  # Any: its result is not looked at.
    """Wait until the task has ended, in whatever way."""
    await workflow.wait([task], return_when=asyncio.ALL_COMPLETED)


async def unless(stop: Callable[[], bool], work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: as above.
    """Run the work, and cancel it when `stop` becomes true first; in any case the task given has ended."""
    task = start(work)
    try:
        await workflow.wait_condition(lambda: task.done() or stop())
    finally:
        task.cancel()
        await protected(settled(task))
    return task


async def protected(work: Coroutine[Any, Any, T]) -> T:  # Any: as above.
    """Run a clean-up to its end whatever is cancelled meanwhile; a cancel that came is raised afterwards."""
    if isinstance(sys.exc_info()[1], GeneratorExit) or not workflow.in_workflow():
        # The run left this worker and its coroutines are being collected, perhaps in the middle of another workflow's
        # task: a clean-up started now would become that one's command (seen). The run lives on elsewhere.
        work.close()
        raise GeneratorExit
    task = start(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await workflow.wait([task], return_when=asyncio.ALL_COMPLETED)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # Retrieved: its own failure gives way to the cancel.
        raise cancelled
    return task.result()


async def fanout(jobs: Sequence[Coroutine[Any, Any, T]], *, keep_going: bool = False) -> list[T]:  # Any: as above.
    """The results of all jobs in their order, or the first failure in that order once every job has ended.

    A failed job cancels its siblings unless `keep_going`; each of them finishes its clean-up before this returns.
    """
    tasks = [start(job) for job in jobs]
    if not tasks:
        return []
    try:
        when = asyncio.ALL_COMPLETED if keep_going else asyncio.FIRST_EXCEPTION
        await workflow.wait(tasks, return_when=when)
    finally:
        await protected(_end(tasks))
    failures = [e for task in tasks if (e := _error_of(task)) is not None]
    if failures:
        # A sibling that was cancelled inside an activity ends with that activity's error: it is no reason either.
        raise next((e for e in failures if not is_cancelled_exception(e)), failures[0])
    return [task.result() for task in tasks]


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:  # Any: the tasks' results are of no interest here.
    for task in tasks:
        task.cancel()
    await workflow.wait(tasks, return_when=asyncio.ALL_COMPLETED)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:  # Any: as above.
    return asyncio.CancelledError() if task.cancelled() else task.exception()
