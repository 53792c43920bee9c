"""From the inbox of webhooks to EnvironmentWorkflow, until Temporal has taken each of them.

The request tries once; the loop finds what is left. A row is closed only after the server took the signal, so a crash
between the two sends it again: the workflow knows the delivery id.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from api.clients import DATABASE_ERRORS, TEMPORAL_ERRORS
from api.services import Services
from stagely.db.queries import environments
from stagely.db.queries.environments import Delivery
from stagely.logs import get_logger
from stagely.settings import Settings
from workflows.messages import (
    WORKFLOW_QUEUE,
    EnvironmentInput,
    PullRequestEvent,
    Timings,
    environment_workflow_id,
)

WORKFLOW = "EnvironmentWorkflow"
DISPATCH_TIMEOUT_S = 3.0  # GitHub waits 10 s for its answer, and what is stored is not lost.
SCAN_S = 2.0
FRESH_S = 4.0  # Younger ones are still in the hands of their own request.

log = get_logger()


class Dispatcher:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def dispatch(self, delivery: Delivery) -> bool:
        """Whether Temporal has it. Never raises for an outage: the row stays open and the loop tries again."""
        try:
            async with asyncio.timeout(DISPATCH_TIMEOUT_S):
                await signal_with_start(self._services, delivery)
        except TEMPORAL_ERRORS as error:
            log.warning(
                "webhook waits for Temporal",
                project_id=delivery.project_id,
                pr=delivery.pr,
                delivery=delivery.delivery_id,
                error_code="temporal_away",
                reason=str(error)[:200],
            )
            return False
        await environments.mark_dispatched(self._services.engine, delivery.delivery_id)
        log.info("webhook dispatched", project_id=delivery.project_id, pr=delivery.pr, action=delivery.action)
        return True

    async def run(self) -> None:
        """Send again what was stored and not dispatched, in its order."""
        while True:
            await asyncio.sleep(SCAN_S)
            try:
                await self._dispatch_stored()
            except DATABASE_ERRORS as error:
                log.warning("dispatcher waits for the database", error_code="database_away", reason=str(error)[:200])

    async def _dispatch_stored(self) -> None:
        """A delivery that Temporal did not take holds back those of its own pull request only."""
        before = datetime.now(UTC) - timedelta(seconds=FRESH_S)
        held: set[tuple[str, int]] = set()
        for delivery in await environments.undispatched(self._services.engine, before):
            key = (delivery.project_id, delivery.pr)
            if key not in held and not await self.dispatch(delivery):
                held.add(key)


async def signal_with_start(services: Services, delivery: Delivery) -> None:
    """Start the environment's workflow, or signal the one that runs. Works without any worker.

    `closed` takes the same way: a workflow that finds its pull request closed ends at once. Raises TEMPORAL_ERRORS.
    Source: temporal.md section 2 (policies tried on a server).
    """
    await services.temporal.start_workflow(
        WORKFLOW,
        EnvironmentInput(delivery.project_id, delivery.pr, timings_of(services.settings)),
        id=environment_workflow_id(delivery.project_id, delivery.pr),
        task_queue=WORKFLOW_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        start_signal="pull_request_event",
        start_signal_args=[PullRequestEvent(delivery.delivery_id, delivery.action, delivery.received_at.timestamp())],
        priority=Priority(fairness_key=delivery.project_id),
        static_summary=f"pull request {delivery.pr}",
    )


def timings_of(settings: Settings) -> Timings:
    """Durations of new environments."""
    return Timings(boot_timeout_s=settings.boot_timeout_s)
