"""What is recorded of each workflow: one scene per phase of an environment's life, in a world made for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from temporalio.client import WorkflowFailureError

from providers.base import VmOrder
from providers.errors import NoCapacity
from stagely.db.bootstrap import LOCAL_TEAM
from stagely.db.queries import environments
from stagely.db.queries.environments import EnvironmentFilter
from stagely.ids import mint
from stagely.states import EnvironmentState
from tests.workflows.certificates import certificate_worker
from tests.workflows.world import World
from workflows.certificate import CertificateWorkflow
from workflows.issuance import CertificateInput
from workflows.messages import (
    WORKFLOW_QUEUE,
    ApproveRequest,
    ExtendRequest,
    FailureReport,
    PinRequest,
    RedeployRequest,
    RetryRequest,
    StopRequest,
    Timings,
    lease_workflow_id,
)
from workflows.reaper import ReaperWorkflow
from workflows.sweeps import SweepInput

READY, FAILED, TERMINATED = EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.TERMINATED
AWAITING, REAPED = EnvironmentState.AWAITING_APPROVAL, EnvironmentState.REAPED
HOUR = 3600.0
QUICK = Timings(debounce_s=0.2)


@dataclass(frozen=True, slots=True)
class Scene:
    """`play` leaves the world as it is to be recorded; its name names the files. The rest: how that world differs."""

    play: Callable[[World], Awaitable[None]]
    timings: Timings = QUICK
    history_limit: int = 2000
    build_slots: int = 50
    alternatives: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.play.__name__


async def ready_then_closed(here: World) -> None:
    await resting(here)
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.handle(1).result()


async def resting(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, READY)


async def failed_build(here: World) -> None:
    here.agents.answer = lambda order: FailureReport("build", "no", "api", 1) if order.build else None
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, FAILED)
    await here.until_true(lambda: here.cloud.alive == {})


async def superseded(here: World) -> None:
    first = here.forge.push(1)
    here.agents.answer = lambda order: "silent" if order.build and order.build.sha == first else None
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build]) == 2)
    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)


async def retried(here: World) -> None:
    here.agents.answer = lambda order: FailureReport("up", "exited", "api", 1) if order.deploy else None
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, FAILED)
    here.agents.answer = lambda order: None
    await here.handle(1).execute_update("retry", RetryRequest("ann"))
    await here.until(1, READY)


async def redeployed(here: World) -> None:
    await resting(here)
    await here.handle(1).execute_update("redeploy", RedeployRequest("ann"))
    await here.until_runs(["completed", "completed"])


async def extended_and_pinned(here: World) -> None:
    await resting(here)
    await here.handle(1).execute_update("extend", ExtendRequest(48 * HOUR, "ann"))
    await here.handle(1).execute_update("pin", PinRequest(True, "ann"))
    await here.until_life(1, lambda life: life.is_pinned)
    await here.handle(1).execute_update("pin", PinRequest(False, "ann"))
    await here.until_life(1, lambda life: not life.is_pinned)


async def warned_and_reaped(here: World) -> None:
    await resting(here)
    await here.until(1, REAPED)
    await here.handle(1).result()


async def approved(here: World) -> None:
    sha = here.forge.push(1, is_foreign=True)
    await here.webhook(1, "opened")
    await here.until(1, AWAITING)
    await here.handle(1).execute_update("approve", ApproveRequest(sha, "ann"))
    await here.until(1, READY)


async def stopped(here: World) -> None:
    await resting(here)
    await here.handle(1).execute_update("stop", StopRequest("ann"))
    await here.handle(1).result()


async def continued_as_new(here: World) -> None:
    """Also: a push to what was carried over."""
    await resting(here)
    first = (await here.handle(1).describe()).raw_description.workflow_execution_info.first_run_id
    await here.until_run_changes(1, first)
    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, READY, second)


async def waits_for_slot(here: World) -> None:
    here.agents.answer = lambda order: "silent" if order.build else None
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until_true(lambda: any(order.build for order in here.agents.seen))
    (view,) = await environments.list_environments(here.engine, LOCAL_TEAM, EnvironmentFilter(pr=1))
    assert [job.position for job in view.jobs if job.position is not None] == [1]
    here.agents.answer = lambda order: None
    await here.agents.answer_held_back()
    await here.until(1, READY)


async def sold_out(here: World) -> None:
    def small_ones(order: VmOrder) -> None:
        if order.size != "large":
            raise NoCapacity(f"local has no {order.size or 'default'} left in {order.region or 'any region'}")

    here.cloud.refuse_create = small_ones
    await resting(here)


async def preview_replaced(here: World) -> None:
    await resting(here)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    (lost,) = here.cloud.alive
    await here.client.get_workflow_handle(lease_workflow_id(lost)).cancel()
    await here.until_true(lambda: len(here.cloud.alive) == 1 and lost not in here.cloud.alive)
    await here.until_true(lambda: len([order for order in here.agents.seen if order.deploy]) == 2)
    await here.until(1, READY)


async def swept(here: World) -> None:
    """Two sweeps after an operator's mistake: one that sees, one that acts."""
    await resting(here)
    await here.until_true(lambda: len(here.cloud.alive) == 1)
    (vm_id,) = here.cloud.alive
    await here.handle(1).terminate("by an operator")
    await here.client.get_workflow_handle(lease_workflow_id(vm_id)).terminate("by an operator")
    here.forge.close(1)
    await _sweep(here)
    await _sweep(here)
    await here.until(1, TERMINATED)


async def _sweep(here: World) -> None:
    order = SweepInput(min_age_s=0.0, apart_s=0.0)
    await here.client.execute_workflow(ReaperWorkflow.run, order, id=mint("reaper"), task_queue=WORKFLOW_QUEUE)


async def certificate_issued(here: World) -> None:
    """A look whose order is refused, one that issues, one that finds nothing to do."""
    async with certificate_worker(here.client) as town:
        town.refuses = "the check failed"
        with suppress(WorkflowFailureError):
            await _look_after_certificate(here)
        town.refuses = ""
        await _look_after_certificate(here)
        await _look_after_certificate(here)


async def _look_after_certificate(here: World) -> None:
    order = CertificateInput("preview.example.com")
    looked = CertificateWorkflow.run
    await here.client.execute_workflow(looked, order, id=mint("certificate"), task_queue=WORKFLOW_QUEUE)


SCENES: tuple[Scene, ...] = (
    Scene(ready_then_closed),
    Scene(resting),
    Scene(failed_build),
    Scene(superseded),
    Scene(retried),
    Scene(redeployed),
    Scene(extended_and_pinned),
    Scene(warned_and_reaped, Timings(debounce_s=0.2, ttl_limit_s=4)),
    Scene(approved),
    Scene(stopped),
    Scene(continued_as_new, history_limit=20),
    Scene(waits_for_slot, build_slots=1),
    Scene(sold_out, alternatives=(("east", "small"), ("west", "large"))),
    Scene(preview_replaced),
    Scene(swept),
    Scene(certificate_issued),
)
