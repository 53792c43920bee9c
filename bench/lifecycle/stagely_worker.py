"""Stagely's real workflows and activities on the cloud in memory, as worker.py serves them in its role `all`.

Without the reaper: its schedule runs every 5 minutes, which is by chance within a round or not, and what it would
clean up must not be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from temporalio.client import Client
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from activities.wiring import Adapters, cloud_activities, core_activities, publisher
from bench.lifecycle.outside import Cloud, Forge, empty_registry
from bench.lifecycle.place import Place
from bench.lifecycle.served import Served
from providers import catalog
from stagely import logs, temporal
from stagely.db.engine import create_engine
from stagely.registry import Registry
from stagely.settings import Settings
from workflows.deployment import WORKFLOWS, runner
from workflows.messages import CLOUD_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE

STICKY_TIMEOUT = timedelta(seconds=2)


@asynccontextmanager
async def served(place: Place) -> AsyncIterator[Served]:
    """Workers of every role, and the loop that publishes comments."""
    settings, cloud, forge = place.settings(), Cloud(), Forge()
    logs.configure(settings.log_format, "worker")
    client = await temporal.connect(settings, lazy=False)
    async with _adapters(settings, cloud, forge) as adapters, AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(group.create_task(publisher(adapters).run()).cancel)
        yield Served(_workers(client, settings, adapters), forge.close_all, lambda: (cloud.made, len(cloud.alive)))


def _workers(client: Client, settings: Settings, adapters: Adapters) -> list[Worker]:
    """The only place that repeats worker.py."""
    flows = Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=WORKFLOWS,
        workflow_runner=runner(),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_cached_workflows=settings.worker_cached_workflows,
        max_concurrent_workflow_tasks=settings.worker_workflow_slots,
    )
    queues = {CORE_QUEUE: core_activities(adapters), CLOUD_QUEUE: cloud_activities(adapters)}
    others = [
        Worker(
            client,
            task_queue=queue,
            activities=activities,
            interceptors=[FailureInterceptor()],
            max_concurrent_activities=settings.worker_activity_slots,
        )
        for queue, activities in queues.items()
    ]
    return [flows, *others]


@asynccontextmanager
async def _adapters(settings: Settings, cloud: Cloud, forge: Forge) -> AsyncIterator[Adapters]:
    engine = create_engine(settings.database_url)
    redis: Redis = Redis.from_url(settings.redis_url)
    registry = empty_registry()
    try:
        yield Adapters(
            engine=engine,
            redis=redis,
            github=forge,
            registry=Registry(registry),
            provider_of=lambda name: cloud,
            user_data=lambda order, at: f"user-data of {order.vm_id}",
            installation=settings.installation,
            registry_address=settings.registry,
            preview_url=settings.preview_url,
            log_url=settings.dashboard_url + "/v1/api/environments/{environment}/logs",
            build_slots=settings.build_slots,
            slot_ask_again_s=settings.slot_ask_again_s,
            alternatives=catalog.alternatives,
        )
    finally:
        await registry.aclose()
        await redis.aclose()
        await engine.dispose()
