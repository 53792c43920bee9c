"""Composition root of the worker: settings to real adapters to Temporal workers. Nobody imports it.

python worker.py [--role all|workflows|core|cloud]     serve until SIGTERM
python worker.py --replay [--query Q] [--limit N]      replay what runs on the server against this code; 1: some break
python worker.py --make-current                        give workflow tasks to build STAGELY_BUILD_ID
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from activities.certificates import CertificateActivities
from activities.failures import FailureInterceptor
from activities.vms import UserData
from activities.wiring import (
    Activities,
    Adapters,
    certificate_activities,
    cloud_activities,
    core_activities,
    issuer,
    publisher,
    sweep_activities,
)
from providers import catalog
from providers.cloud_init import MachineBoot, render
from providers.dns import catalog as dns_catalog
from stagely import agent_archive, logs, registry, rollout, search_attributes, temporal, tokens
from stagely.certificates import CertificateFolder
from stagely.db.engine import create_engine
from stagely.github import GitHub
from stagely.leaving import leave, run_and_leave
from stagely.rehearsal import rehearse
from stagely.settings import Settings
from stagely.vm_ca import VmCa
from workflows import attributes
from workflows.deployment import WORKFLOWS, runner
from workflows.issuance import CertificateInput
from workflows.messages import CERTIFICATE_QUEUE, CLOUD_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE, Timings, VmLeaseInput
from workflows.schedules import ensure_certificate, ensure_reaper
from workflows.sweeps import SweepInput

ROLES = ("all", "workflows", "core", "cloud")
# The SDK's default of 10 s is the time a killed worker's workflows stand still; 2 s was measured to be enough.
STICKY_TIMEOUT = timedelta(seconds=2)
GRACE = timedelta(seconds=10)  # What a running activity gets on SIGTERM before it is cancelled.
DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+")
RUNNING = f"ExecutionStatus = 'Running' AND TaskQueue = '{WORKFLOW_QUEUE}'"

log = structlog.get_logger()


def main() -> None:
    given = _arguments()
    settings = Settings()
    logs.configure(settings.log_format, "worker")
    is_serving = not (given.replay or given.make_current)
    try:
        temporal.set_up_runtime(settings.worker_metrics_listen if is_serving else "", given.role)
    except RuntimeError as error:
        log.error("worker could not start", reason=str(error))
        leave(2)
    if given.replay:
        run_and_leave(_replay(settings, given.query, given.limit))
    if given.make_current:
        run_and_leave(_make_current(settings))
    run_and_leave(_serve(settings, given.role))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker.py", description="Runs Stagely's workflows and activities.")
    parser.add_argument("--role", choices=ROLES, default="all", help="which task queues to serve (default: all)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--replay", action="store_true", help="replay running workflows against this code, then exit")
    instead.add_argument("--make-current", action="store_true", help="send workflow tasks to this STAGELY_BUILD_ID")
    parser.add_argument("--query", default=RUNNING, help="which workflows --replay takes (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="how many workflows --replay takes at most (default: all)")
    return parser.parse_args()


async def _serve(settings: Settings, role: str) -> int:
    try:
        await run(settings, role)
    except RuntimeError as error:
        log.error("worker could not go on", reason=str(error))
        return 2
    return 0


async def _replay(settings: Settings, query: str, limit: int | None) -> int:
    """1 when a run cannot go on with this code. A line per such run on stdout, a summary at the end."""
    client = await temporal.connect(settings, lazy=False)
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=runner(), data_converter=temporal.replay_converter(client))
    done = await rehearse(client, replayer, query, limit, report=print)
    print(done)
    return 1 if done.broken else 0


async def _make_current(settings: Settings) -> int:
    try:
        before = await rollout.make_current(await temporal.connect(settings, lazy=False), settings.build_id)
    except rollout.BuildNotSeen as error:
        log.error("build could not be made current", reason=str(error))
        return 1
    log.info("build is current", build_id=settings.build_id or "unversioned", before=before or "unversioned")
    return 0


async def _tell_if_idle(client: Client, build_id: str) -> None:
    """A versioned worker that is not current looks healthy and gets nothing: say so, and what ends it.

    It is not made current by itself: an old build that crashes and restarts during a rollout would take all runs back.
    """
    if build_id and (current := await rollout.current_build(client)) != build_id:
        log.warning(
            "worker gets no workflow tasks yet",
            build_id=build_id,
            current=current or "unversioned",
            reason=f"another build is current; once all workers are up: STAGELY_BUILD_ID={build_id} python worker.py "
            "--make-current",
        )


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
    """The role's workers; with the core's activities also the loops that publish comments and certify VMs."""
    client = await temporal.connect(settings, lazy=False)
    await search_attributes.ensure(client, attributes.ALL)
    async with adapters(settings) as made, AsyncExitStack() as stack:
        found: list[Worker] = []
        sweeps = sweep_activities(made, client, Timings(boot_timeout_s=settings.boot_timeout_s))
        if role in ("all", "workflows"):
            await ensure_reaper(client, SweepInput(silence_s=settings.preview_silence_s))
            await _tell_if_idle(client, settings.build_id)
            found.append(_workflow_worker(client, settings))
        if role in ("all", "core"):
            found.append(_activity_worker(client, CORE_QUEUE, core_activities(made) + sweeps, settings))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for loop in (publisher(made), issuer(made)):
                if loop is not None:
                    stack.callback(group.create_task(loop.run()).cancel)
        if role in ("all", "cloud"):
            found.append(_activity_worker(client, CLOUD_QUEUE, cloud_activities(made), settings))
            if settings.certificate_domain:
                certificates = certificate_activities(await certificates_of(settings))
                await ensure_certificate(client, CertificateInput(settings.certificate_domain))
                found.append(_activity_worker(client, CERTIFICATE_QUEUE, certificates, settings))
        yield found


async def certificates_of(settings: Settings) -> CertificateActivities:
    """What looks after the edge's certificate. Raises RuntimeError when a setting for it is missing or wrong."""
    from providers import acme  # Here, for most workers never need these: 0.3 s of every start.
    from providers.dns.nameservers import Nameservers, servers_of

    if not DOMAIN.fullmatch(settings.certificate_domain):
        raise RuntimeError(
            "STAGELY_CERTIFICATE_DOMAIN must be a domain in lower case, without a wildcard, "
            f"got {settings.certificate_domain!r}"
        )
    if settings.certificate_folder is None:
        raise RuntimeError("STAGELY_CERTIFICATE_FOLDER is not set: it must be the folder that the edge reads from")
    await dns_catalog.load(settings).aclose()  # What is wrong with it is said now, not in the hour of renewal.
    folder = CertificateFolder(settings.certificate_folder)
    authority = acme.AcmeAuthority(
        settings.acme_directory, settings.acme_email, settings.acme_profile, folder.account_key
    )
    zone = settings.dns_zone or settings.certificate_domain
    nameservers = Nameservers(zone, servers_of(settings.dns_nameservers))
    return CertificateActivities(folder, authority, lambda: dns_catalog.load(settings), nameservers)


@asynccontextmanager
async def adapters(settings: Settings) -> AsyncIterator[Adapters]:
    """The real outside worlds, closed with the block."""
    engine = create_engine(settings.database_url)
    redis: Redis = Redis.from_url(settings.redis_url)
    images = registry.connect(settings.registry_url)
    github = GitHub(settings)
    try:
        yield Adapters(
            engine=engine,
            redis=redis,
            github=github,
            registry=images,
            provider_of=lambda name: catalog.load(name, settings),
            user_data=user_data(settings, agent_archive.archive().sha256),
            installation=settings.installation,
            registry_address=settings.registry,
            preview_url=settings.preview_url,
            log_url=settings.dashboard_url + "/v1/api/environments/{environment}/logs",
            build_slots=settings.build_slots,
            slot_ask_again_s=settings.slot_ask_again_s,
            alternatives=catalog.alternatives,
            vm_ca=VmCa(settings.vm_ca_file) if settings.vm_ca_file else None,
        )
    finally:
        await github.aclose()
        await images.client.aclose()
        await redis.aclose()
        await engine.dispose()


def _workflow_worker(client: Client, settings: Settings) -> Worker:
    """Only workflows are versioned: every build's activities take every other's messages (fields are only added)."""
    return Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=WORKFLOWS,
        workflow_runner=runner(),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_cached_workflows=settings.worker_cached_workflows,
        max_concurrent_workflow_tasks=settings.worker_workflow_slots,
        deployment_config=rollout.deployment_config(settings.build_id),
    )


def _activity_worker(client: Client, queue: str, activities: Activities, settings: Settings) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        activities=activities,
        interceptors=[FailureInterceptor()],
        max_concurrent_activities=settings.worker_activity_slots,
        graceful_shutdown_timeout=GRACE,
    )


def user_data(settings: Settings, archive_sha256: str) -> UserData:
    """Cloud-init's document of a VM; its enrolment token follows from the ledger row, so a retry renders the same.

    The VM may be made as late as the order's limit after its row. The token outlives that by its whole life.
    """
    signer = tokens.EnrolmentTokens(settings.secret(settings.signing_key_file, "signing_key_file"))

    def document(order: VmLeaseInput, issued_at: float) -> str:
        return render(
            MachineBoot(
                agent_id=order.vm_id,
                token=signer.mint(order.vm_id, issued_at, order.create_limit_s + tokens.ENROLMENT_TTL_S),
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


if __name__ == "__main__":
    main()
