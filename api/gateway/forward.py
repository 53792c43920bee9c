"""Events out of the inbox to the workflows that own the VMs: results and losses. Durable, in order per VM.

Only results that a workflow waits for are signals; those of other commands are taken here, and close their commands.

An event is forwarded until its owner took it; `forwarded_at` then closes the row, and the command it answers. Whoever
stored it asks at once; a scan every few seconds finds what an outage of Temporal or a killed gateway left behind.
Twice is possible and harmless: workflows drop (vm_id, boot_id, seq) that they have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Iterable, Sequence
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from agent.protocol import Shutdown
from api.clients import DATABASE_ERRORS, TEMPORAL_ERRORS
from api.gateway.sessions import Sessions
from stagely.db.queries import inbox
from stagely.db.queries.inbox import PendingEvent
from stagely.db.queries.intake import EventKey
from stagely.ids import mint
from stagely.logs import get_logger
from stagely.temporal import CALL_TIMEOUT_S
from workflows.messages import AgentEvent, AgentEventKind, FailureReport, ServiceReport

SCAN_S = 2.0  # How long an event may wait after Temporal came back.
UNREADABLE_RETRY_S = 300.0  # A stored event of an unknown shape stays for a release that knows it.
PARALLEL = 32  # VMs at once; Temporal's dev server takes some 300 signals/s.
UNAWAITED = frozenset({"prepare", "stop", "certify"})  # Commands whose results no workflow waits for.
_NAMESPACE_MISSING = "NamespaceNotFoundFailure"

log = get_logger()


class Delivery(enum.Enum):
    TAKEN = enum.auto()
    OWNER_GONE = enum.auto()
    LATER = enum.auto()
    SKIPPED = enum.auto()


class Forwarder:
    def __init__(self, engine: AsyncEngine, temporal: Client, sessions: Sessions) -> None:
        self._engine = engine
        self._temporal = temporal
        self._sessions = sessions
        self._asked: set[str] = set()
        self._unsettled: set[str] = set()  # VMs whose agents may wait for the confirmation of a result.
        self._woken = asyncio.Event()
        self._scan_at = 0.0
        self._unreadable: dict[EventKey, float] = {}

    def nudge(self, vm_ids: Iterable[str]) -> None:
        """There is something to forward for these VMs."""
        self._asked.update(vm_ids)
        self._unsettled.update(self._asked)
        if self._asked:
            self._woken.set()

    async def run(self) -> None:
        while True:
            asked = await self._next()
            try:
                await self._forward(asked)
                if asked is None:
                    await self._settle_by_others()
            except DATABASE_ERRORS as error:
                log.warning("events wait for the database", error_code="database_away", reason=str(error)[:200])
                await asyncio.sleep(SCAN_S)

    async def _next(self) -> list[str] | None:
        """VMs that somebody asked for, or None when it is time to look at all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._scan_at - time.monotonic())):
                await self._woken.wait()
        if time.monotonic() >= self._scan_at:  # However many ask: what nobody asks for has its turn too.
            self._scan_at = time.monotonic() + SCAN_S
            return None
        self._woken.clear()
        asked, self._asked = list(self._asked), set()
        return asked

    async def _forward(self, vm_ids: list[str] | None) -> None:
        older_than_s = SCAN_S if vm_ids is None else 0.0  # Fresh ones of other gateways are theirs to forward.
        events = await inbox.pending_events(self._engine, vm_ids, older_than_s)
        if not events:
            return
        by_vm = groupby(sorted(events, key=lambda e: e.vm_id), key=lambda e: e.vm_id)  # A stable sort keeps the order.
        gate = asyncio.Semaphore(PARALLEL)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._deliver_in_order(list(part), gate)) for _, part in by_vm]
        taken = [event for task in tasks for event in task.result()]
        if taken:
            await inbox.mark_forwarded(self._engine, taken)
            self._confirm([(event.vm_id, event.seq) for event in taken])

    async def _deliver_in_order(self, events: Sequence[PendingEvent], gate: asyncio.Semaphore) -> list[PendingEvent]:
        """Those events, from the first on, that need no further try."""
        done: list[PendingEvent] = []
        for event in events:
            async with gate:
                delivery = await self._deliver(event)
            if delivery is Delivery.LATER:
                break
            if delivery is Delivery.OWNER_GONE:
                self._shut_down(event)
            if delivery is not Delivery.SKIPPED:
                done.append(event)
        return done

    async def _deliver(self, event: PendingEvent) -> Delivery:
        if event.kind == "result" and event.command_kind in UNAWAITED:
            return Delivery.TAKEN
        signal = self._read(event)
        if signal is None:
            return Delivery.SKIPPED
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                handle = self._temporal.get_workflow_handle(event.owner_workflow_id)
                await handle.signal("agent_event", signal)
        except TEMPORAL_ERRORS as error:
            if _is_unknown_workflow(error):
                return Delivery.OWNER_GONE
            reason = str(error)[:200]
            log.warning("event waits for Temporal", vm_id=event.vm_id, error_code="temporal_away", reason=reason)
            return Delivery.LATER
        log.info("event forwarded", vm_id=event.vm_id, kind=event.kind, workflow_id=event.owner_workflow_id)
        return Delivery.TAKEN

    def _read(self, event: PendingEvent) -> AgentEvent | None:
        """The signal's argument; None for a body of another shape, which is tried again now and then."""
        key = (event.vm_id, event.boot_id, event.seq)
        if time.monotonic() < self._unreadable.get(key, 0.0):
            return None
        self._unreadable.pop(key, None)
        try:
            return agent_event(event)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            self._unreadable[key] = time.monotonic() + UNREADABLE_RETRY_S
            log.error("stored event is unreadable", vm_id=event.vm_id, seq=event.seq, reason=str(error)[:300])
            return None

    def _shut_down(self, event: PendingEvent) -> None:
        """Nobody waits for this VM any more: tell it to power off; its lease or the reaper deletes it."""
        reason = f"workflow {event.owner_workflow_id} that owned this VM has ended"
        log.warning("VM has no owner", vm_id=event.vm_id, workflow_id=event.owner_workflow_id, kind=event.kind)
        session = self._sessions.of(event.vm_id)
        if session is not None and event.kind != "lost":
            session.send(Shutdown(mint("cmd"), reason))

    def _confirm(self, taken: Iterable[tuple[str, int]]) -> None:
        for vm_id, seq in taken:
            session = self._sessions.of(vm_id)
            if session is not None:
                session.note_taken(seq)
                session.confirm()

    async def _settle_by_others(self) -> None:
        """Results that another gateway forwarded for us are confirmed to our agents too."""
        waiting = [session for vm_id in self._unsettled if (session := self._sessions.of(vm_id)) and session.untaken]
        self._unsettled = {session.who.vm_id for session in waiting}
        keys = [(session.who.vm_id, session.who.boot_id, seq) for session in waiting for seq in session.untaken]
        if keys:
            self._confirm([(vm_id, seq) for vm_id, _, seq in await inbox.forwarded(self._engine, keys)])


def agent_event(event: PendingEvent) -> AgentEvent:
    """The signal's argument, as it was stored."""
    body = event.body
    failure = body.get("failure")
    return AgentEvent(
        vm_id=event.vm_id,
        boot_id=event.boot_id,
        seq=event.seq if event.kind == "result" else 0,  # The inbox numbers its own rows; `lost` is 0 to workflows.
        kind=AgentEventKind(event.kind),
        command_id=event.command_id,
        outcome=body.get("outcome", ""),
        digest=body.get("digest", ""),
        failure=FailureReport(**{**failure, "tail": tuple(failure["tail"])}) if failure else None,
        services=tuple(ServiceReport(**service) for service in body.get("services", [])),
        phases=body.get("phases", {}),
    )


def _is_unknown_workflow(error: Exception) -> bool:
    """No such run. A namespace that is not there yet (a server that just started) has the same status code."""
    if not isinstance(error, RPCError) or error.status is not RPCStatusCode.NOT_FOUND:
        return False
    return not any(detail.type_url.endswith(_NAMESPACE_MISSING) for detail in error.grpc_status.details)
