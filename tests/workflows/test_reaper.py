"""Whole sweeps: what is destroyed, who is told, what holds a sweep back, and what never stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog.testing
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from activities.sweep_environments import EnvironmentSweeps
from activities.sweep_routes import RouteSweeps
from activities.sweep_vms import CloudSweeps, LedgerSweeps
from activities.sweeps import SweepActivities
from activities.vms import VmActivities
from providers.base import Provider
from stagely.db.tables import vms
from stagely.errors import GitHubUnavailable
from stagely.ids import mint
from tests.activities.yard import AT_ONCE, HOUR_S, THEIRS, Cloud, Pulls, Yard, ago
from tests.fakes.cloud import FakeCloud, FakeCloudProvider
from workflows.messages import CLOUD_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE, Timings, environment_workflow_id
from workflows.reaper import ReaperWorkflow, chosen
from workflows.sweeps import DoomedVm, Findings, Leftover, SweepInput, SweepReport

Activities = list[Callable[..., Any]]  # Any: each has its own input and result.


@pytest.fixture
def another() -> FakeCloud:
    """A second cloud, "another"; nothing asks for it unless a row names it."""
    return FakeCloud()


@pytest.fixture
async def yard(engine: AsyncEngine, redis: Redis, temporal_client: Client, another: FakeCloud) -> AsyncIterator[Yard]:
    """A yard with workers that sweep it."""
    made = Yard(engine, redis, temporal_client, Cloud(), Pulls())
    await made.begin()
    async with AsyncExitStack() as stack:
        for worker in workers(made, another):
            await stack.enter_async_context(worker)
        yield made
        await made.end_all()


def workers(yard: Yard, another: FakeCloud) -> list[Worker]:
    engine, client = yard.engine, yard.client

    def provider_of(name: str) -> Provider:
        return yard.provider() if name == "fake" else FakeCloudProvider(another, "ours")

    sweeps, environments = (
        SweepActivities(engine, client),
        EnvironmentSweeps(engine, client, yard.pulls, Timings()),
    )
    core: Activities = [
        sweeps.begin_sweep,
        sweeps.sweep_slots,
        sweeps.conclude_sweep,
        LedgerSweeps(engine, client).survey_ledger,
        environments.survey_environments,
        environments.deliver_webhooks,
        RouteSweeps(engine, yard.redis).sweep_routes,
    ]
    cloud: Activities = [
        VmActivities(engine, provider_of, lambda order, at: "", "ours").destroy_vm,
        CloudSweeps(engine, provider_of).survey_account,
    ]
    intercept = [FailureInterceptor()]
    return [
        Worker(client, task_queue=WORKFLOW_QUEUE, workflows=[ReaperWorkflow]),
        Worker(client, task_queue=CORE_QUEUE, activities=core, interceptors=intercept),
        Worker(client, task_queue=CLOUD_QUEUE, activities=cloud, interceptors=intercept),
    ]


async def swept(yard: Yard, order: SweepInput = AT_ONCE) -> SweepReport:
    return await yard.client.execute_workflow(ReaperWorkflow.run, order, id=mint("reaper"), task_queue=WORKFLOW_QUEUE)


async def settled(yard: Yard) -> str:
    """An environment that is as it should be: open, and followed by its workflow."""
    environment_id = await yard.environment(pr=1)
    await yard.follow(1)
    yard.pulls.open["local/app"] = {1}
    return environment_id


# --- what is destroyed


async def test_healthy_installation_is_swept_without_a_trace(yard: Yard) -> None:
    vm_id = await yard.healthy(await settled(yard))
    await yard.gateway(up_s=HOUR_S)
    await swept(yard)

    report = await swept(yard)

    assert (sum(report.seen.values()), sum(report.acted.values()), report.notes) == (0, 0, ())
    assert yard.cloud.names() == [f"stg-{vm_id}"]
    assert await yard.looks(1) == []


async def test_machine_without_a_ledger_row_is_destroyed_by_the_second_sweep(yard: Yard) -> None:
    vm_id = await yard.machine()
    theirs = await yard.machine(installation=THEIRS)

    first = await swept(yard)
    assert (first.destroyed, len(yard.cloud.names())) == ((), 2)

    second = await swept(yard)
    assert second.destroyed == (DoomedVm(vm_id, Leftover.ORPHAN, "fake"),)
    assert yard.cloud.names() == [f"stg-{theirs}"]


async def test_terminated_lease_costs_its_machine_and_tells_the_owner(yard: Yard) -> None:
    owner = environment_workflow_id(yard.project_id, 1)
    vm_id = await yard.healthy(await settled(yard), owner_workflow_id=owner)
    await yard.end(f"vm/{vm_id}")
    await swept(yard)

    await swept(yard)

    assert (yard.cloud.names(), await yard.state(vm_id)) == ([], "gone")
    told = [(e.vm_id, e.kind, e.failure.message if e.failure else "") for e in await yard.agent_events(owner)]
    assert told == [(vm_id, "lost", f"VM {vm_id} had no running lease; it was destroyed")]


async def test_expired_machine_whose_owner_is_gone_has_its_lease_released(yard: Yard) -> None:
    vm_id = await yard.healthy(await settled(yard), owner_workflow_id="run/gone", expires_at=ago(HOUR_S))
    await swept(yard)

    await swept(yard)

    assert (yard.cloud.names(), await yard.state(vm_id)) == ([], "gone")
    assert await yard.releases(vm_id) == 1


async def test_lease_of_an_owner_that_was_told_is_the_owners_to_release(yard: Yard) -> None:
    owner = environment_workflow_id(yard.project_id, 1)
    vm_id = await yard.healthy(await settled(yard), owner_workflow_id=owner, expires_at=ago(HOUR_S))
    await swept(yard)
    await swept(yard)

    assert await yard.releases(vm_id) == 0
    assert len(await yard.agent_events(owner)) == 1


async def test_vanished_machine_has_its_row_closed_and_its_owner_told(yard: Yard) -> None:
    owner = environment_workflow_id(yard.project_id, 1)
    vm_id = await yard.row(await settled(yard), owner_workflow_id=owner)
    await yard.run(f"vm/{vm_id}")
    await swept(yard)

    report = await swept(yard)

    assert report.destroyed == (DoomedVm(vm_id, Leftover.VANISHED, "fake", owner),)
    assert await yard.state(vm_id) == "gone"
    failure = (await yard.agent_events(owner))[0].failure
    assert failure is not None
    assert (failure.step, failure.code) == ("vm", "vm_lost")


async def test_silent_machine_is_replaced_by_its_owner(yard: Yard) -> None:
    owner = environment_workflow_id(yard.project_id, 1)
    vm_id = await yard.healthy(await settled(yard), owner_workflow_id=owner, last_seen_at=ago(1000))
    await yard.gateway(up_s=HOUR_S)
    await swept(yard)

    report = await swept(yard)

    assert [(vm.vm_id, vm.kind) for vm in report.destroyed] == [(vm_id, Leftover.SILENT)]
    assert [event.vm_id for event in await yard.agent_events(owner)] == [vm_id]


async def test_machine_with_two_faults_is_destroyed_once(yard: Yard) -> None:
    await yard.healthy(await settled(yard), last_seen_at=ago(1000), expires_at=ago(HOUR_S))
    await yard.gateway(up_s=HOUR_S)
    await swept(yard)

    report = await swept(yard)

    assert [vm.kind for vm in report.destroyed] == [Leftover.EXPIRED]
    assert len([call for call in yard.cloud.journal if call.startswith("delete")]) == 1


# --- what holds it back


async def test_no_more_machines_are_destroyed_than_the_ceiling_allows(yard: Yard) -> None:
    for _ in range(4):
        await yard.machine()
    order = SweepInput(apart_s=0.0, ceiling=3)
    await swept(yard, order)

    with structlog.testing.capture_logs() as logs:
        report = await swept(yard, order)

    assert (len(report.destroyed), len(yard.cloud.names())) == (3, 1)
    held = [line for line in logs if line["event"] == "sweep left some over"]
    assert [(line["log_level"], line["kind"], line["due"], line["acted"]) for line in held] == [
        ("error", "orphan", 4, 3)
    ]


async def test_what_the_ceiling_left_over_goes_with_the_next_sweep(yard: Yard) -> None:
    for _ in range(3):
        await yard.machine()
    order = SweepInput(apart_s=0.0, ceiling=2)
    await swept(yard, order)
    await swept(yard, order)
    await swept(yard, order)

    assert yard.cloud.names() == []


async def test_many_that_are_silent_at_once_are_our_own_outage(yard: Yard) -> None:
    environment_id = await settled(yard)
    for _ in range(3):
        await yard.healthy(environment_id, last_seen_at=ago(1000))
    await yard.gateway(up_s=HOUR_S)
    order = SweepInput(apart_s=0.0, ceiling=2)
    await swept(yard, order)

    report = await swept(yard, order)

    assert (report.due[Leftover.SILENT], report.destroyed, len(yard.cloud.names())) == (3, (), 3)


async def test_silence_is_no_reason_while_no_gateway_listens(yard: Yard) -> None:
    await yard.healthy(await settled(yard), last_seen_at=ago(1000))
    await swept(yard)

    report = await swept(yard)

    assert report.destroyed == ()
    assert report.notes == ("1 VMs are silent, but no gateway has listened for 900 s: holding still",)


async def test_dry_run_says_what_it_would_do_and_does_nothing(yard: Yard) -> None:
    await yard.machine()
    await swept(yard)

    report = await swept(yard, SweepInput(apart_s=0.0, is_dry_run=True))

    assert (report.due[Leftover.ORPHAN], report.destroyed) == (1, ())
    assert len(yard.cloud.names()) == 1


# --- what never stops it


async def test_cloud_and_github_that_are_away_do_not_stop_the_rest(yard: Yard, another: FakeCloud) -> None:
    environment_id = await yard.environment(pr=1)
    await yard.follow(1)
    await yard.row(environment_id, provider="another", state="gone", gone_at=ago(HOUR_S))
    another.revoke_key()
    yard.pulls.fails["local/app"] = GitHubUnavailable("GitHub answered 503")
    await yard.machine()
    slot = await yard.slot(environment_id, "completed")
    await swept(yard)

    report = await swept(yard)

    assert yard.cloud.names() == []
    assert slot not in await yard.slots()
    assert [note.partition(":")[0] for note in report.notes] == ["cloud another", "GitHub was not asked any further"]


async def test_machine_that_cannot_be_destroyed_does_not_keep_the_others_alive(yard: Yard, another: FakeCloud) -> None:
    environment_id = await settled(yard)
    stuck = await yard.row(environment_id, expires_at=ago(HOUR_S), provider="another")
    await yard.run(f"vm/{stuck}")
    await yard.healthy(environment_id, expires_at=ago(HOUR_S))
    await swept(yard)
    another.revoke_key()

    report = await swept(yard)

    assert [vm.provider for vm in report.destroyed] == ["fake"]
    assert await yard.state(stuck) == "destroying"
    assert any(note.startswith(f"VM {stuck} on another is not destroyed yet") for note in report.notes)


async def test_every_destroyed_machine_is_an_error_in_the_log(yard: Yard) -> None:
    vm_id = await yard.machine()
    await swept(yard)

    with structlog.testing.capture_logs() as logs:
        await swept(yard)

    errors = [(line["event"], line["vm_id"], line["kind"]) for line in logs if line["log_level"] == "error"]
    assert errors == [("leaked VM destroyed", vm_id, "orphan")]
    done = [line for line in logs if line["event"] == "sweep done"]
    assert [(line["log_level"], line["seen"], line["acted"]) for line in done] == [
        ("info", {"orphan": 1}, {"orphan": 1})
    ]


async def test_machine_that_came_back_to_its_ledger_is_spared(yard: Yard) -> None:
    vm_id = await yard.machine()
    await swept(yard)
    await yard.row(await settled(yard), id=vm_id)
    await yard.run(f"vm/{vm_id}")

    assert (await swept(yard)).destroyed == ()
    assert await yard.state(vm_id) == "running"
    await yard.change(vms, vm_id, state="gone")


def test_orphans_come_before_what_somebody_else_may_still_end() -> None:
    expired, orphan = DoomedVm("vm-1", Leftover.EXPIRED, "fake"), DoomedVm("vm-2", Leftover.ORPHAN, "fake")
    looks = [Findings(due={"expired": 1}, doomed=(expired,)), Findings(due={"orphan": 1}, doomed=(orphan,))]

    assert chosen(looks, ceiling=1) == [orphan]
