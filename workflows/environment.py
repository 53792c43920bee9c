"""EnvironmentWorkflow: one per pull request, from opened to gone. The latest commit wins."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.images import ImageActivities
    from activities.records import RecordActivities
    from activities.routes import RouteActivities
    from activities.source import SourceActivities
    from activities.vms import VmActivities

from workflows.fanout import protected, start
from workflows.messages import (
    AgentEvent,
    EnvironmentInput,
    EnvironmentRef,
    EnvironmentState,
    FailureReport,
    PullRequestEvent,
    PullRequestFacts,
    PullRequestRef,
    Record,
    RunState,
    Step,
    StopRequest,
)
from workflows.options import DESTROY_VM, GITHUB, PREVIEW_REPLACEMENTS, REGISTRY, STORE_FOREVER
from workflows.publisher import Publisher
from workflows.push import Preview, Push

_REMEMBERED_DELIVERIES = 64  # A redelivery comes within minutes; a pull request sees a few events an hour.


@workflow.defn
class EnvironmentWorkflow:
    """Keeps one pull request's environment true: deploys its head, replaces what is lost, tears down at the end.

    Signals only write down; the loop in `run` re-reads the pull request from GitHub and acts on what it says now.
    """

    @workflow.init
    def __init__(self, order: EnvironmentInput) -> None:
        self._order = order
        self._inbox: list[PullRequestEvent] = []
        self._deliveries: list[str] = []
        self._stop: StopRequest | None = None
        self._facts: PullRequestFacts | None = None
        self._preview = Preview()
        self._publisher = Publisher()
        self._push: Push | None = None
        self._task: asyncio.Task[None] | None = None
        self._expires_at: float | None = None
        self._losses = 0

    @workflow.run
    async def run(self, order: EnvironmentInput) -> str:
        ended = EnvironmentState.TERMINATED
        try:
            while True:
                ended = await self._live()
                await protected(self._teardown(ended))
                # A `reopened` may have come while the VM was being destroyed: look once more before leaving.
                if not self._inbox and not await self._last_words():
                    return ended
        except (asyncio.CancelledError, FailureError):
            # A cancel that comes during an activity is that activity's error. Whatever ends this run, its VM goes.
            await protected(self._teardown(EnvironmentState.TERMINATED))
            raise

    @workflow.signal
    def pull_request_event(self, event: PullRequestEvent) -> None:
        """Something happened to the pull request. A delivery id that was seen changes nothing."""
        if event.delivery_id in self._deliveries:
            return
        self._deliveries = [*self._deliveries, event.delivery_id][-_REMEMBERED_DELIVERIES:]
        self._inbox.append(event)

    @workflow.signal
    def stop(self, request: StopRequest) -> None:
        """A person ends this environment; the next push starts it again."""
        self._stop = request

    @workflow.signal
    def agent_event(self, event: AgentEvent) -> None:
        """What the preview's agent reports."""
        self._preview.note(event)

    async def _live(self) -> EnvironmentState:
        """Follow the pull request until it closes, somebody stops it, or its time is over."""
        while True:
            if self._stop is not None:
                self._inbox.clear()  # What came before the stop does not undo it.
                return EnvironmentState.TERMINATED
            if self._inbox and not await self._follow():
                return EnvironmentState.TERMINATED
            self._finish_push()
            if not self._inbox and not await self._rest():
                return EnvironmentState.REAPED
            if self._preview.is_lost and self._task is None:
                await self._replace_preview()

    async def _last_words(self) -> bool:
        """Wait for the last comment to be written. True: something came meanwhile, go on living."""
        await workflow.wait_condition(lambda: bool(self._inbox) or not self._publisher.is_busy)
        return bool(self._inbox)

    async def _rest(self) -> bool:
        """Wait until there is something to do. False: the environment's time to live is over."""
        timeout = None if self._expires_at is None else max(0.0, self._expires_at - workflow.time())
        try:
            await workflow.wait_condition(self._has_work, timeout=timeout, timeout_summary="time to live")
        except TimeoutError:
            return self._task is not None or self._expires_at is None or workflow.time() < self._expires_at
        return True

    def _has_work(self) -> bool:
        ended = self._task is not None and self._task.done()
        idle_loss = self._task is None and self._preview.is_lost
        return bool(self._inbox) or self._stop is not None or ended or idle_loss

    async def _follow(self) -> bool:
        """Read the pull request again and deploy its head if it is new. False: it is closed."""
        if self._task is not None and not self._task.done():
            await workflow.sleep(self._order.timings.debounce_s, summary="several pushes become one")
        event, self._inbox = self._inbox[-1], []
        try:
            facts = await self._resolve(event.action)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return await self._unanswered(event, error)
        if not facts.is_open or not facts.environment_id:
            self._facts = self._facts or facts
            return False
        if self._facts is None or self._facts.sha != facts.sha:
            await self._supersede()
            self._facts, self._losses = facts, 0
            self._begin_push(event.received_at)
        return True

    async def _unanswered(self, event: PullRequestEvent, error: ActivityError) -> bool:
        """GitHub does not say what became of the pull request. What runs goes on, its time to live with it."""
        cause = error.cause
        workflow.logger.warning("the pull request could not be read", extra={"error_code": str(cause)})
        if isinstance(cause, ApplicationError) and cause.non_retryable:
            return self._facts is not None  # Nothing was begun yet: there is nothing to live for.
        self._inbox.insert(0, event)
        await workflow.sleep(self._order.timings.unanswered_s, summary="GitHub does not answer")
        return True

    def _begin_push(self, received_at: float) -> None:
        assert self._facts is not None
        received_at = received_at or workflow.time()
        self._push = Push(self._order, self._facts, self._preview, received_at, self._publisher)
        self._expires_at = None
        self._task = start(self._push.run())

    async def _supersede(self) -> None:
        """Cancel the push that runs, and wait until its builders are released: two never deploy at once."""
        if self._task is not None:
            assert self._push is not None
            self._push.is_superseded = True
            self._task.cancel()
            await protected(self._settled(self._task))
            self._task = None

    async def _settled(self, task: asyncio.Task[None]) -> None:
        await workflow.wait([task], return_when=asyncio.ALL_COMPLETED)

    def _finish_push(self) -> None:
        if self._task is None or not self._task.done():
            return
        task, self._task = self._task, None
        if not task.cancelled():
            task.result()  # A bug shows here, as a failed workflow task that good code can finish.
        if self._push is not None:
            self._expires_at = workflow.time() + self._push.ttl_s

    async def _replace_preview(self) -> None:
        """The preview's VM vanished at rest: deploy the same commit on a new one, a bounded number of times."""
        assert self._facts is not None
        self._losses += 1
        await self._preview.drop()
        if self._losses <= PREVIEW_REPLACEMENTS:
            self._begin_push(workflow.time())
            return
        ref = EnvironmentRef(self._facts.environment_id)
        text = f"its VM vanished {self._losses} times; it is not replaced again. Push to try anew."
        failure = FailureReport("vm", text, code="vm_lost")
        await workflow.execute_activity_method(RouteActivities.withdraw, ref, **STORE_FOREVER)
        await self._record(Record(ref.environment_id, EnvironmentState.FAILED, text, failure=failure))
        self._publisher.publish(ref.environment_id)

    async def _resolve(self, action: str) -> PullRequestFacts:
        ref = PullRequestRef(self._order.project_id, self._order.pr, action)
        return await workflow.execute_activity_method(
            SourceActivities.resolve_pull_request, ref, summary=f"PR {ref.pr} now", **GITHUB
        )

    async def _teardown(self, state: EnvironmentState) -> None:
        """Withdraw the route first, then destroy every VM and prove it, then forget images, then say so."""
        started = workflow.time()
        await self._supersede()
        facts, self._facts, self._stop, self._expires_at = self._facts, None, None, None
        if facts is None or not facts.environment_id:
            return
        ref = EnvironmentRef(facts.environment_id)
        await workflow.execute_activity_method(
            RouteActivities.withdraw, ref, summary="withdraw routes", **STORE_FOREVER
        )
        await self._record(Record(facts.environment_id, EnvironmentState.TERMINATING, "destroying its VMs"))
        await self._preview.drop()
        await workflow.execute_activity_method(
            VmActivities.destroy_all, ref, summary="destroy what is left", **DESTROY_VM
        )
        await self._forget_images(ref)
        run_id = self._push.run_id if self._push else ""
        step = Step("teardown", RunState.COMPLETED, started, ended_at=workflow.time())
        await self._record(Record(facts.environment_id, state, _FAREWELL[state], run_id=run_id, steps=(step,)))
        self._publisher.publish(ref.environment_id)

    async def _forget_images(self, ref: EnvironmentRef) -> None:
        try:
            await workflow.execute_activity_method(ImageActivities.delete_images, ref, **REGISTRY)
        except ActivityError as error:
            workflow.logger.warning("images were left in the registry", extra={"error_code": str(error.cause)})

    async def _record(self, record: Record) -> None:
        await workflow.execute_activity_method(
            RecordActivities.record, record, summary=str(record.state or ""), **STORE_FOREVER
        )


_FAREWELL = {
    EnvironmentState.TERMINATED: "the pull request was closed or the environment stopped; everything of it is gone",
    EnvironmentState.REAPED: "its time to live was over; push again to get a new one",
}
