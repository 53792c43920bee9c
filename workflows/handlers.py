"""What an environment is told and asked: signals and updates. They only write down, EnvironmentWorkflow acts."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from workflows.lifetime import Lifetime, Warning
from workflows.messages import (
    AgentEvent,
    ApproveRequest,
    Asked,
    Carried,
    EnvironmentInput,
    ExtendRequest,
    LeaseEnded,
    PinRequest,
    PullRequestEvent,
    RedeployRequest,
    RetryRequest,
    StopRequest,
)
from workflows.preview import Preview
from workflows.push import Push
from workflows.requests import Again, check_approval, check_extension, refuse

_REMEMBERED_DELIVERIES = 64  # A redelivery comes within minutes; a pull request sees a few events an hour.
_REMEMBERED_APPROVALS = 16


class Handlers:
    """An environment's state, and every handler that may change it from outside."""

    def __init__(self, order: EnvironmentInput) -> None:
        carried = order.carried
        self._order = order
        self._inbox = list(order.inbox)
        self._deliveries = carried.deliveries if carried else ()
        self._stop: StopRequest | None = None
        self._again = Again.NO
        self._has_asked = False
        self._is_ending = False
        self._is_withdrawn = False
        self._is_unanswered = False
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
        """A person ends this environment; the next push starts it again, what came before does not."""
        if not self._is_ending:
            self._stop = request
            self._inbox.clear()
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

    def _is_asked(self) -> bool:
        return bool(self._inbox) or self._stop is not None or self._again is not Again.NO or self._has_asked

    def _take_over(self, carried: Carried) -> None:
        self._preview = Preview.carried(carried)
        lifetime = self._lifetime
        lifetime.ttl_s, lifetime.expires_at, lifetime.is_pinned = carried.ttl_s, carried.expires_at, carried.is_pinned
        lifetime.warning, lifetime.vm_expires_at = Warning(carried.warning), carried.vm_expires_at
