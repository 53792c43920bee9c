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

from workflows.certificate import CertificateWorkflow
from workflows.issuance import CertificateInput
from workflows.messages import WORKFLOW_QUEUE
from workflows.reaper import ReaperWorkflow
from workflows.sweeps import SweepInput

REAPER = "reaper"
CERTIFICATE = "certificate"
EVERY_S = 300.0
JITTER_S = 30.0
LOOK_EVERY_S = 3600.0  # Let's Encrypt forgives 5 failed checks of a name per hour; one try makes two.
LIMIT_S = 30.0  # For the server's answer; the client itself asks again for ten seconds.
CATCH_UP = timedelta(minutes=10)  # The SDK's default is a year: after an outage the newest tick is enough.


async def ensure_reaper(
    client: Client, order: SweepInput, every_s: float = EVERY_S, jitter_s: float = JITTER_S
) -> None:
    """Have a sweep started every `every_s`, with this order. Every worker may call it, at once and again.

    A schedule that is there is brought up to date; that somebody paused it stays so.

    Raises RPCError or TimeoutError: without its reaper an installation leaks, so better no worker.
    """
    sweep = ScheduleActionStartWorkflow(
        ReaperWorkflow.run,
        order,
        id=REAPER,  # The server adds the time of the tick.
        task_queue=WORKFLOW_QUEUE,
        static_summary="sweep: clouds against ledger",
    )
    await _ensure(client, REAPER, _schedule(sweep, every_s, jitter_s))


async def ensure_certificate(client: Client, order: CertificateInput, every_s: float = LOOK_EVERY_S) -> None:
    """Have the certificate looked after every `every_s`, and at once when this is new. Otherwise as `ensure_reaper`."""
    look = ScheduleActionStartWorkflow(
        CertificateWorkflow.run,
        order,
        id=CERTIFICATE,
        task_queue=WORKFLOW_QUEUE,
        static_summary=f"certificate of {order.domain}",
    )
    await _ensure(client, CERTIFICATE, _schedule(look, every_s, every_s / 10), starts_at_once=True)


async def _ensure(client: Client, name: str, wanted: Schedule, *, starts_at_once: bool = False) -> None:
    async with asyncio.timeout(LIMIT_S):
        try:
            await client.create_schedule(name, wanted, trigger_immediately=starts_at_once)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(name).update(lambda found: _updated(found, wanted))


def _updated(found: ScheduleUpdateInput, wanted: Schedule) -> ScheduleUpdate:
    return ScheduleUpdate(dataclasses.replace(wanted, state=found.description.schedule.state))


def _schedule(action: ScheduleActionStartWorkflow, every_s: float, jitter_s: float) -> Schedule:
    return Schedule(
        action=action,
        spec=ScheduleSpec(
            intervals=[ScheduleIntervalSpec(every=timedelta(seconds=every_s))], jitter=timedelta(seconds=jitter_s)
        ),
        # What still runs is not overtaken: the next tick finds what this one leaves.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )
