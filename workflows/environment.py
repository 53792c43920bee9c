"""EnvironmentWorkflow: one per pull request, from opened to gone. The latest commit wins."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.source import SourceActivities

from stagely.ids import mint
from stagely.states import EnvironmentState
from workflows.ending import bury, destroy_all, withdraw
from workflows.ending import record as write
from workflows.fanout import protected, settled, start
from workflows.lifetime import Due, Lifetime, Warning
from workflows.messages import (
    AgentEvent,
    ApproveRequest,
    Asked,
    Carried,
    EnvironmentInput,
    ExtendRequest,
    FailureReport,
    LastPush,
    LeaseEnded,
    PinRequest,
    PullRequestEvent,
    PullRequestFacts,
    RedeployRequest,
    RetryRequest,
    StopRequest,
)
from workflows.options import GITHUB, PREVIEW_REPLACEMENTS
from workflows.orders import Look, PullRequestRef, Record, RouteOrder
from workflows.preview import Preview
from workflows.push import Push
from workflows.requests import Again, check_approval, check_extension, refuse, weightiest

_REMEMBERED_DELIVERIES = 64  # A redelivery comes within minutes; a pull request sees a few events an hour.
_REMEMBERED_APPROVALS = 16


@workflow.defn
class EnvironmentWorkflow:
    """Keeps one pull request's environment true: deploys its head, replaces what is lost, tears down at the end.

    Signals and updates only write down; the loop in `run` re-reads the pull request from GitHub and acts.
    """

    @workflow.init
    def __init__(self, order: EnvironmentInput) -> None:
        carried = order.carried
        self._order = order
        self._inbox: list[PullRequestEvent] = []
        self._deliveries = carried.deliveries if carried else ()
        self._stop: StopRequest | None = None
        self._again = Again.NO
        self._has_asked = False
        self._is_ending = False
        self._is_withdrawn = False
        self._facts = carried.facts if carried else None
        self._preview = Preview()
        self._push: Push | None = None
        self._task: asyncio.Task[None] | None = None
        self._last = carried.last if carried else None
        self._lifetime = Lifetime(order.timings.lease_margin_s)
        self._losses = carried.losses if carried else 0
        self._approved = carried.approved if carried else ()
        self._awaits = carried.awaits if carried else ""
        if carried is not None:
            self._take_over(carried)

    @workflow.run
    async def run(self, order: EnvironmentInput) -> str:
        try:
            await self._preview.adopt()
            while True:
                ended = await self._live()
                await protected(self._teardown(ended))
                # A `reopened` may have come while the VM was being destroyed: look once more before leaving. No await
                # comes after this look, so the server fails this very task if a signal arrives meanwhile.
                if not self._inbox:
                    return ended
                self._is_ending = False
        except (asyncio.CancelledError, FailureError):
            # A cancel that comes during an activity is that activity's error. Whatever ends this run, its VM goes.
            await protected(self._teardown(EnvironmentState.TERMINATED))
            raise

    # --- what comes in ----------------------------------------------------------------------------------------------

    @workflow.signal
    def pull_request_event(self, event: PullRequestEvent) -> None:
        """Something happened to the pull request. A delivery id that was seen changes nothing."""
        if event.delivery_id in self._deliveries:
            return
        self._deliveries = (*self._deliveries, event.delivery_id)[-_REMEMBERED_DELIVERIES:]
        self._inbox.append(event)

    @workflow.signal
    def agent_event(self, event: AgentEvent) -> None:
        """What the preview's agent reports."""
        self._preview.note(event)

    @workflow.signal
    def lease_ended(self, ended: LeaseEnded) -> None:
        """The lease of a VM that an earlier run of this environment ordered has ended."""
        self._preview.note_ended(ended)

    @workflow.update
    def stop(self, request: StopRequest) -> Asked:
        """A person ends this environment; the next push starts it again."""
        if not self._is_ending:
            self._stop = request
        return Asked()

    @workflow.update
    def extend(self, request: ExtendRequest) -> Asked:
        """Move the end of the preview's time."""
        self._lifetime.extend(workflow.time(), request.seconds)
        self._has_asked = True
        return self._lifetime.asked()

    @extend.validator
    def _may_extend(self, request: ExtendRequest) -> None:
        self._refuse_when_ending()
        check_extension(self._lifetime.expires_at, request.seconds, workflow.time())

    @workflow.update
    def pin(self, request: PinRequest) -> Asked:
        """Keep the preview until its pull request closes, or count its time again from now."""
        self._lifetime.pin(workflow.time(), request.pinned)
        self._has_asked = True
        return self._lifetime.asked()

    @pin.validator
    def _may_pin(self, request: PinRequest) -> None:
        self._refuse_when_ending()

    @workflow.update
    def redeploy(self, request: RedeployRequest) -> Asked:
        """Build and deploy the head once more."""
        self._again = Again.REDEPLOY
        return self._lifetime.asked()

    @redeploy.validator
    def _may_redeploy(self, request: RedeployRequest) -> None:
        self._refuse_when_ending()
        if self._facts is None:
            refuse("not_ready", "the pull request is being read for the first time; it is deployed right after")
        if self._awaits:
            refuse("awaiting_approval", f"commit {self._awaits} waits for approval; approve it instead")

    @workflow.update
    def retry(self, request: RetryRequest) -> Asked:
        """Go on from the step at which the last push failed."""
        self._again = Again.RETRY
        return self._lifetime.asked()

    @retry.validator
    def _may_retry(self, request: RetryRequest) -> None:
        self._refuse_when_ending()
        is_running = self._task is not None and self._push is not None and not self._push.has_failed
        has_failed = self._task is not None or (self._last is not None and self._last.has_failed)
        if is_running or not has_failed or self._awaits:
            refuse("nothing_failed", "its last push did not fail, or another one runs; redeploy it instead")

    @workflow.update
    def approve(self, request: ApproveRequest) -> Asked:
        """Let an outsider's commit run; the next one asks again."""
        self._approved = (*self._approved, request.sha)[-_REMEMBERED_APPROVALS:]
        self._has_asked = True
        return self._lifetime.asked()

    @approve.validator
    def _may_approve(self, request: ApproveRequest) -> None:
        self._refuse_when_ending()
        check_approval(self._awaits, request.sha)

    def _refuse_when_ending(self) -> None:
        if self._is_ending or self._stop is not None:
            refuse("ending", "this environment is being taken down; push or reopen the pull request for a new one")

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _live(self) -> EnvironmentState:
        """Follow the pull request until it closes, somebody stops it, or its time is over."""
        while True:
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError  # The SDK swallows a cancel that comes while a signal is on its way.
            if self._stop is not None:
                self._inbox.clear()  # What came before the stop does not undo it.
                return EnvironmentState.TERMINATED
            if self._inbox and not await self._follow():
                return EnvironmentState.TERMINATED
            self._finish_push()
            await self._do_as_asked()
            if self._preview.is_lost and self._task is None:
                await self._replace_preview()
            elif not self._has_work() and not await self._rest():
                return EnvironmentState.REAPED

    async def _rest(self) -> bool:
        """Wait until there is something to do. False: the environment's time to live is over."""
        now = workflow.time()
        due = Due.NOTHING if self._task is not None else self._lifetime.due(now)
        if due is Due.END:
            return False
        if due is Due.WARN:
            self._lifetime.warn(now)
            await self._save_lifetime()
        elif due is Due.RENEW:
            await self._save_lifetime()
        else:
            await self._wait(now)
        return True

    async def _wait(self, now: float) -> None:
        """Until a signal, an update, the push's end or the next time at which something is due."""
        if self._task is None:
            self._continue_as_new()
        wakes_at = None if self._task is not None else self._lifetime.wakes_at(now)
        timeout = None if wakes_at is None else wakes_at - now
        try:
            await workflow.wait_condition(self._has_work, timeout=timeout, timeout_summary="time to live")
        except TimeoutError:
            return

    def _has_work(self) -> bool:
        ended = self._task is not None and self._task.done()
        idle_loss = self._task is None and self._preview.is_lost
        asked = self._again is not Again.NO or self._has_asked
        return bool(self._inbox) or self._stop is not None or asked or ended or idle_loss

    async def _follow(self) -> bool:
        """Read the pull request again and deploy its head if it is new. False: it is closed."""
        if self._task is not None and not self._task.done():
            await workflow.sleep(self._order.timings.debounce_s, summary="several pushes become one")
        event, self._inbox = weightiest(self._inbox), []
        try:
            look = await self._look(event)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return await self._unanswered(event, error)
        facts, self._is_withdrawn = look.facts, look.is_withdrawn
        if not facts.is_open or not facts.environment_id:
            self._facts = self._facts or facts
            return False
        if self._facts is None or self._facts.sha != facts.sha or self._facts.environment_id != facts.environment_id:
            await self._supersede()
            await self._begin(facts, look, event)
        return True

    async def _begin(self, facts: PullRequestFacts, look: Look, event: PullRequestEvent) -> None:
        """A new head: deploy it, or wait for somebody's approval of an outsider's."""
        if facts.vms and self._preview.vm is None:
            await destroy_all(facts.environment_id, facts.vms)  # Of a run before this one that was terminated.
        self._facts, self._losses, self._last, self._awaits = facts, 0, None, ""
        if facts.is_foreign and facts.sha not in self._approved:
            await self._await_approval(facts)
            return
        self._begin_push(event.received_at, look)

    async def _await_approval(self, facts: PullRequestFacts) -> None:
        self._awaits = facts.sha
        if not self._preview.holds_data:
            await self._preview.drop()  # It was ordered for the commit before and never served: nobody needs it.
        text = f"commit {facts.sha[:12]} comes from another repository; someone with write access must approve it"
        state = EnvironmentState.AWAITING_APPROVAL
        await self._record(Record(facts.environment_id, state, text, sha=facts.sha, clear_failure=True, publishes=True))

    async def _unanswered(self, event: PullRequestEvent, error: ActivityError) -> bool:
        """GitHub does not say what became of the pull request. What runs goes on, its time to live with it."""
        cause = error.cause
        workflow.logger.warning("the pull request could not be read", extra={"error_code": str(cause)})
        if isinstance(cause, ApplicationError) and cause.non_retryable:
            return self._facts is not None  # Nothing was begun yet: there is nothing to live for.
        self._inbox.insert(0, event)
        await workflow.sleep(self._order.timings.unanswered_s, summary="GitHub does not answer")
        return True

    async def _do_as_asked(self) -> None:
        """What updates wrote down."""
        if self._has_asked:
            self._has_asked = False
            if self._awaits in self._approved and self._facts is not None:
                self._awaits = ""
                self._begin_push(workflow.time())
            await self._save_lifetime()
        again, self._again = self._again, Again.NO
        # The head may have become one that nobody approved since this was asked for.
        if again is not Again.NO and self._facts is not None and not self._awaits:
            await self._supersede()
            self._begin_push(workflow.time(), built=self._last.built if self._last and again is Again.RETRY else {})

    async def _save_lifetime(self) -> None:
        """Write down until when the preview lives, say so in the comment, and keep its VM's deadline beyond it."""
        if self._facts is None:
            return
        await self._preview.renew(self._lifetime)
        row = self._lifetime.row(self._preview.vm_id)
        await self._record(Record(self._facts.environment_id, lifetime=row, publishes=True))

    # --- pushes -----------------------------------------------------------------------------------------------------

    def _begin_push(self, received_at: float, look: Look | None = None, built: dict[str, str] | None = None) -> None:
        assert self._facts is not None
        planned = look.planned if look else None
        self._push = Push(
            order=self._order,
            facts=self._facts,
            preview=self._preview,
            lifetime=self._lifetime,
            received_at=received_at or workflow.time(),
            run_id=planned.run_id if planned else mint("run", choice=workflow.random().choice),
            planned=planned,
            built=dict(built or {}),
        )
        self._task = start(self._push.run())

    async def _supersede(self) -> None:
        """Cancel the push that runs, and wait until its builders are released: two never deploy at once."""
        if self._task is not None:
            assert self._push is not None
            self._push.is_superseded = True
            self._task.cancel()
            await protected(settled(self._task))
            self._task = None
            self._note_last(self._push)

    def _finish_push(self) -> None:
        if self._task is None or not self._task.done():
            return
        task, self._task = self._task, None
        if not task.cancelled():
            task.result()  # A bug shows here, as a failed workflow task that good code can finish.
        if self._push is not None:
            self._note_last(self._push)

    def _note_last(self, push: Push) -> None:
        self._last = LastPush(push.run_id, push.facts.sha, push.has_failed, push.built)

    async def _replace_preview(self) -> None:
        """The preview's VM vanished at rest: deploy the same commit on a new one, a bounded number of times."""
        assert self._facts is not None
        self._losses += 1
        await self._preview.drop()
        if self._awaits:  # What was up is gone, and the head may not run: there is nothing to show.
            withdrawn = RouteOrder(self._facts.environment_id, "withdrawn")
            await self._record(Record(self._facts.environment_id, route=withdrawn))
            return
        if self._losses <= PREVIEW_REPLACEMENTS:
            self._begin_push(workflow.time(), built=self._last.built if self._last else {})
            return
        text = f"its VM vanished {self._losses} times; it is not replaced again. Push or redeploy to try anew."
        failure = FailureReport("vm", text, code="vm_lost")
        gone = RouteOrder(self._facts.environment_id, "withdrawn")
        self._last = LastPush(self._last.run_id if self._last else "", self._facts.sha, has_failed=True)
        state = EnvironmentState.FAILED
        record = Record(self._facts.environment_id, state, text, failure=failure, route=gone, publishes=True)
        await self._record(record)

    # --- the end, and the next run ----------------------------------------------------------------------------------

    async def _teardown(self, state: EnvironmentState) -> None:
        """Withdraw the route first, then destroy every VM and prove it, then forget images, then say so."""
        self._is_ending = True
        started = workflow.time()
        await self._supersede()
        facts, self._facts, self._stop = self._facts, None, None
        run_id = self._push.run_id if self._push else self._last.run_id if self._last else ""
        self._push, self._last = None, None
        self._again, self._has_asked, self._awaits = Again.NO, False, ""
        self._lifetime = Lifetime(self._order.timings.lease_margin_s)
        if facts is None or not facts.environment_id:
            return
        environment = facts.environment_id
        await withdraw(environment, self._preview.vm_id, is_done=self._is_withdrawn)
        await self._preview.drop()
        await bury(environment, state, run_id, started)

    def _continue_as_new(self) -> None:
        """At rest only: nothing runs, nothing waits. No await stands between the last look at the inbox and this."""
        info = workflow.info()
        is_long = info.get_current_history_length() >= self._order.history_limit
        if self._facts is None or not (is_long or info.is_continue_as_new_suggested()):
            return
        if self._has_work() or not workflow.all_handlers_finished():
            return
        workflow.continue_as_new(
            EnvironmentInput(
                self._order.project_id, self._order.pr, self._order.timings, self._order.history_limit, self._carried()
            )
        )

    def _carried(self) -> Carried:
        assert self._facts is not None
        lifetime, preview = self._lifetime, self._preview
        return Carried(
            facts=self._facts,
            deliveries=self._deliveries,
            vm=preview.vm.order if preview.vm else None,
            vm_expires_at=lifetime.vm_expires_at,
            holds_data=preview.holds_data,
            serves=preview.serves,
            ttl_s=lifetime.ttl_s,
            expires_at=lifetime.expires_at,
            is_pinned=lifetime.is_pinned,
            warning=lifetime.warning,
            losses=self._losses,
            approved=self._approved,
            awaits=self._awaits,
            last=self._last,
        )

    def _take_over(self, carried: Carried) -> None:
        self._preview = Preview.carried(carried)
        lifetime = self._lifetime
        lifetime.ttl_s, lifetime.expires_at, lifetime.is_pinned = carried.ttl_s, carried.expires_at, carried.is_pinned
        lifetime.warning, lifetime.vm_expires_at = Warning(carried.warning), carried.vm_expires_at

    # --- activities -------------------------------------------------------------------------------------------------

    async def _look(self, event: PullRequestEvent) -> Look:
        """Read the pull request; its new head is planned at once when no push runs that the plan could disturb."""
        run_id = "" if self._task is not None else mint("run", choice=workflow.random().choice)
        ref = PullRequestRef(
            self._order.project_id,
            self._order.pr,
            event.action,
            run_id=run_id,
            known_sha=self._facts.sha if self._facts else "",
            received_at=event.received_at,
            approved=self._approved,
            serves=self._preview.serves,
        )
        return await workflow.execute_activity_method(
            SourceActivities.look, ref, summary=f"PR {ref.pr} now ({event.action or 'event'})", **GITHUB
        )

    async def _record(self, record: Record) -> None:
        await write(record, self._facts, self._preview.vm_id)
