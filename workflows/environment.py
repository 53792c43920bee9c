"""EnvironmentWorkflow: one per pull request, from opened to gone. The latest commit wins."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.source import SourceActivities

from stagely.ids import mint
from stagely.states import EnvironmentState
from workflows.ending import bury, destroy_all, withdraw
from workflows.ending import record as write
from workflows.failures import report_of
from workflows.fanout import protected, settled, start, unless
from workflows.handlers import Handlers
from workflows.lifetime import Due, Lifetime
from workflows.messages import (
    Carried,
    EnvironmentInput,
    FailureReport,
    LastPush,
    PullRequestEvent,
    PullRequestFacts,
)
from workflows.options import PREVIEW_REPLACEMENTS, github
from workflows.orders import Look, PullRequestRef, Record, RouteOrder
from workflows.push import Push
from workflows.requests import Again, weightiest


@workflow.defn
class EnvironmentWorkflow(Handlers):
    """Keeps one pull request's environment true: deploys its head, replaces what is lost, tears down at the end.

    Its handlers only write down; the loop in `run` re-reads the pull request from GitHub and acts.
    """

    @workflow.init
    def __init__(self, order: EnvironmentInput) -> None:
        super().__init__(order)

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
        except (asyncio.CancelledError, FailureError) as error:
            # A cancel that comes during an activity is that activity's error. Whatever ends this run, its VM goes.
            await protected(self._teardown(EnvironmentState.TERMINATED))
            if self._inbox and is_cancelled_exception(error):
                self._begin_anew()
            raise

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _live(self) -> EnvironmentState:
        """Follow the pull request until it closes, somebody stops it, or its time is over."""
        while True:
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError  # The SDK swallows a cancel that comes while a signal is on its way.
            if self._stop is not None:
                return EnvironmentState.TERMINATED
            if self._inbox and not await self._follow():
                return EnvironmentState.TERMINATED
            self._finish_push()
            await self._do_as_asked()
            if self._is_over():
                return EnvironmentState.REAPED
            await self._keep_time()
            if self._preview.is_lost and self._task is None:
                await self._replace_preview()
            elif not self._has_work():
                await self._rest()

    def _is_over(self) -> bool:
        """Its time is, and nobody has asked for more; what GitHub does not answer is asked again by the next life."""
        return self._due() is Due.END and (self._is_unanswered or not self._is_asked())

    def _may_stop(self) -> bool:
        """Somebody asked for its end, and it is known what is to end."""
        return self._stop is not None and self._facts is not None

    def _due(self) -> Due:
        return self._lifetime.due(workflow.time(), is_pushing=self._task is not None)

    async def _keep_time(self) -> None:
        """Warn, or keep the VM's deadline away, when that is due."""
        due = self._due()
        if due is Due.WARN:
            self._lifetime.warn(workflow.time())
        if due in (Due.WARN, Due.RENEW):
            await self._save_lifetime()

    async def _rest(self) -> None:
        """Wait for a signal, an update, the push's end or the next time at which something is due."""
        if self._task is None:
            self._continue_as_new()
        now = workflow.time()
        wakes_at = self._lifetime.wakes_at(now, is_pushing=self._task is not None)
        timeout = None if wakes_at is None else wakes_at - now
        try:
            await workflow.wait_condition(self._has_work, timeout=timeout, timeout_summary="time to live")
        except TimeoutError:
            return

    def _has_work(self) -> bool:
        ended = self._task is not None and self._task.done()
        idle_loss = self._task is None and self._preview.is_lost
        return self._is_asked() or ended or idle_loss

    async def _follow(self) -> bool:
        """Read the pull request again and deploy its head if it is new. False: it is closed."""
        if self._task is not None and not self._task.done():
            await workflow.sleep(self._order.timings.debounce_s, summary="several pushes become one")
        self._finish_push()
        if not self._inbox:
            return True  # A stop came meanwhile and took it.
        event, self._inbox = weightiest(self._inbox), []
        looking = await unless(self._may_stop, self._look(event))
        if self._may_stop():
            return True
        try:
            look = looking.result()
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return await self._unanswered(event, error)
        self._is_unanswered = False
        facts, self._is_withdrawn = look.facts, look.is_withdrawn
        if not facts.is_open or not facts.environment_id:
            self._facts = self._facts or facts
            return False
        known = self._facts
        is_same = known and (known.sha, known.environment_id) == (facts.sha, facts.environment_id)
        if not is_same or look.is_anew:
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
        report, cause = report_of("look", error), error.cause
        told = {"error_code": report.code or "unanswered", "reason": report.message}
        workflow.logger.warning("the pull request could not be read", extra=told)
        if isinstance(cause, ApplicationError) and cause.non_retryable:
            return self._facts is not None  # Nothing was begun yet: there is nothing to live for.
        self._inbox.insert(0, event)
        self._is_unanswered = True
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                self._may_stop, timeout=self._order.timings.unanswered_s, timeout_summary="GitHub does not answer"
            )
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

    def _begin_anew(self) -> NoReturn:
        """After a cancel and its teardown: what came meanwhile is the next run's; a cancelled one cannot live on."""
        order = self._order
        workflow.continue_as_new(
            EnvironmentInput(order.project_id, order.pr, order.timings, order.history_limit, inbox=tuple(self._inbox))
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
        limits = github(self._order.timings.answer_limit_s)
        return await workflow.execute_activity_method(
            SourceActivities.look, ref, summary=f"PR {ref.pr} now ({event.action or 'event'})", **limits
        )

    async def _record(self, record: Record) -> None:
        await write(record, self._facts, self._preview.vm_id)
