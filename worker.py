"""Composition root of the worker: settings to real adapters to Temporal workers. Nobody imports it.

python worker.py [--role all|workflows|core|cloud]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from activities.agents import AgentActivities
from activities.failures import FailureInterceptor
from activities.github import GitHubActivities
from activities.images import ImageActivities
from activities.records import RecordActivities
from activities.routes import RouteActivities
from activities.source import SourceActivities
from activities.vms import UserData, VmActivities
from providers import catalog
from providers.cloud_init import MachineBoot, render
from stagely import agent_archive, logs, registry, temporal, tokens
from stagely.db.engine import create_engine
from stagely.github import GitHub
from stagely.settings import Settings
from workflows.environment import EnvironmentWorkflow
from workflows.messages import CLOUD_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE, VmLeaseInput
from workflows.pipeline import PipelineWorkflow
from workflows.vm_lease import VmLeaseWorkflow

ROLES = ("all", "workflows", "core", "cloud")
# The SDK's default of 10 s is the time a killed worker's workflows stand still; 2 s was measured to be enough.
STICKY_TIMEOUT = timedelta(seconds=2)
GRACE = timedelta(seconds=10)  # What a running activity gets on SIGTERM before it is cancelled.
CACHED_WORKFLOWS = 1500  # About 0.5 MB each; below it every task replays its workflow from the start.

log = structlog.get_logger()


def main() -> None:
    parser = argparse.ArgumentParser(prog="worker.py", description="Runs Stagely's workflows and activities.")
    parser.add_argument("--role", choices=ROLES, default="all", help="which task queues to serve (default: all)")
    role = parser.parse_args().role
    settings = Settings()
    logs.configure(settings.log_format, "worker")
    asyncio.run(run(settings, role))
    _leave()


async def run(settings: Settings, role: str) -> None:
    """Serve until SIGTERM or SIGINT, then let running activities finish within the grace time."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        for worker in await stack.enter_async_context(_workers(settings, role)):
            await stack.enter_async_context(worker)
        log.info("worker started", role=role, installation=settings.installation)
        await stop.wait()
        log.info("worker stopping", role=role)


@asynccontextmanager
async def _workers(settings: Settings, role: str) -> AsyncIterator[list[Worker]]:
    client = await temporal.connect(settings, lazy=False)
    engine = create_engine(settings.database_url)
    redis: Redis = Redis.from_url(settings.redis_url)
    images = registry.connect(settings.registry_url)
    github = GitHub(settings)
    makers: dict[str, Callable[[], Worker]] = {
        "workflows": lambda: _workflow_worker(client),
        "core": lambda: _core_worker(client, settings, engine, redis, images, github),
        "cloud": lambda: _cloud_worker(client, settings, engine),
    }
    try:
        yield [make() for name, make in makers.items() if role in ("all", name)]
    finally:
        await github.aclose()
        await images.client.aclose()
        await redis.aclose()
        await engine.dispose()


def _workflow_worker(client: Client) -> Worker:
    return Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=[EnvironmentWorkflow, PipelineWorkflow, VmLeaseWorkflow],
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_cached_workflows=CACHED_WORKFLOWS,
    )


def _core_worker(
    client: Client,
    settings: Settings,
    engine: AsyncEngine,
    redis: Redis,
    images: registry.Registry,
    github: GitHub,
) -> Worker:
    log_url = settings.dashboard_url + "/v1/api/environments/{environment}/logs"
    source = SourceActivities(engine, github, settings.preview_url, settings.registry)
    records = RecordActivities(engine, redis)
    agents = AgentActivities(engine, redis)
    routes = RouteActivities(engine, redis, log_url)
    manifests = ImageActivities(engine, images)
    comments = GitHubActivities(engine, github, log_url)
    return Worker(
        client,
        task_queue=CORE_QUEUE,
        activities=[
            source.resolve_pull_request,
            source.plan,
            records.record,
            agents.order,
            routes.show,
            routes.withdraw,
            manifests.merge,
            manifests.delete_images,
            comments.publish,
        ],
        interceptors=[FailureInterceptor()],
        graceful_shutdown_timeout=GRACE,
    )


def _cloud_worker(client: Client, settings: Settings, engine: AsyncEngine) -> Worker:
    vms = VmActivities(
        engine,
        provider_of=lambda name: catalog.load(name, settings),
        user_data=user_data(settings, agent_archive.archive().sha256),
        installation=settings.installation,
    )
    return Worker(
        client,
        task_queue=CLOUD_QUEUE,
        activities=[vms.create_vm, vms.destroy_vm, vms.destroy_all],
        interceptors=[FailureInterceptor()],
        graceful_shutdown_timeout=GRACE,
    )


def user_data(settings: Settings, archive_sha256: str) -> UserData:
    """Cloud-init's document of a VM; its enrolment token follows from the ledger row, so a retry renders the same."""
    signer = tokens.EnrolmentTokens(settings.secret(settings.signing_key_file, "signing_key_file"))

    def document(order: VmLeaseInput, issued_at: float) -> str:
        return render(
            MachineBoot(
                agent_id=order.vm_id,
                token=signer.mint(order.vm_id, issued_at),
                core_url=settings.agent_url,
                archive_url=f"{settings.core_url}/v1/agent/archive/{archive_sha256}/stagely-agent.pyz",
                archive_sha256=archive_sha256,
                registry=settings.registry,
                mirror=settings.mirror,
                plain_http=settings.core_url.startswith("http://"),
                job_id=order.build_id,
                silence_limit_s=settings.preview_silence_s,
                reconnect_first_wait_s=settings.reconnect_first_wait_s,
            )
        )

    return document


def _leave() -> None:
    """End the process without the interpreter's own exit, which crashed now and then after a Temporal worker closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
