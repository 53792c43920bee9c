"""The workers of `bare`: three task queues and the cache and sticky timeout of Stagely's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from bench.lifecycle.bare import (
    CLOUD,
    CORE,
    WORKFLOWS,
    BareActivities,
    BareEnvironment,
    BareLease,
    BarePipeline,
    Step,
)
from bench.lifecycle.place import Place
from bench.lifecycle.served import Served

STICKY_TIMEOUT = timedelta(seconds=2)


async def connect(place: Place) -> Client:
    return await Client.connect(place.temporal_address, data_converter=pydantic_data_converter)


@asynccontextmanager
async def served(place: Place, tell: Callable[[Step], None]) -> AsyncIterator[Served]:
    """There is no cloud and no forge: closing is a signal, and nothing can leak but workflows."""
    client = await connect(place)
    activities, settings = BareActivities(tell), place.settings()
    flows = Worker(
        client,
        task_queue=WORKFLOWS,
        workflows=[BareEnvironment, BarePipeline, BareLease],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_cached_workflows=settings.worker_cached_workflows,
        max_concurrent_workflow_tasks=settings.worker_workflow_slots,
    )
    others = [Worker(client, task_queue=queue, activities=[activities.step]) for queue in (CORE, CLOUD)]
    yield Served([flows, *others], close_all=lambda: None, vms=lambda: (0, 0))
