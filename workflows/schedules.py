"""What runs by the clock. No workflow imports this: worker.py sets it up at its start."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from workflows.messages import WORKFLOW_QUEUE
from workflows.reaper import ReaperWorkflow
from workflows.sweeps import SweepInput

REAPER = "reaper"
EVERY_S = 300.0
JITTER_S = 30.0
LIMIT_S = 30.0  # For the server's answer; the client itself asks again for ten seconds.
CATCH_UP = timedelta(minutes=10)  # The SDK's default is a year: after an outage the newest tick is enough.


async def ensure_reaper(
    client: Client, order: SweepInput, every_s: float = EVERY_S, jitter_s: float = JITTER_S
) -> None:
    """Have a sweep started every `every_s`, with this order. Every worker may call it, at once and again.

    A schedule that is there is brought up to date; that somebody paused it stays so.

    Raises RPCError or TimeoutError: without its reaper an installation leaks, so better no worker.
    """
    wanted = _schedule(order, every_s, jitter_s)
    async with asyncio.timeout(LIMIT_S):
        try:
            await client.create_schedule(REAPER, wanted)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(REAPER).update(lambda found: _updated(found, wanted))


def _updated(found: ScheduleUpdateInput, wanted: Schedule) -> ScheduleUpdate:
    return ScheduleUpdate(dataclasses.replace(wanted, state=found.description.schedule.state))


def _schedule(order: SweepInput, every_s: float, jitter_s: float) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            ReaperWorkflow.run,
            order,
            id=REAPER,  # The server adds the time of the tick.
            task_queue=WORKFLOW_QUEUE,
            static_summary="sweep: clouds against ledger",
        ),
        spec=ScheduleSpec(
            intervals=[ScheduleIntervalSpec(every=timedelta(seconds=every_s))], jitter=timedelta(seconds=jitter_s)
        ),
        # A sweep that still runs is not overtaken: the next tick finds what this one leaves.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )
