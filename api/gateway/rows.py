"""From agents' messages to the rows that keep them. No I/O.

What leaves a VM is hostile by assumption: ids come from the session only, texts are cut, numbers must be finite.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.protocol import Failure, Log, Outcome, Result, Service, Status
from api.gateway.merging import Merger
from api.gateway.session import CommandFacts, Numbered, Session
from stagely.db.queries.intake import EventKey, NewChunk, NewEvent, StepMark
from stagely.states import RunState
from workflows.messages import AgentEvent, AgentEventKind, FailureReport, ServiceReport

STEPS = ("clone", "build", "push", "pull", "up", "health")
TAIL_LINES = 20
TAIL_LINE_CHARACTERS = 500  # 20 of them keep a signal far below Temporal's 2 MB, and a comment below GitHub's limit.
MESSAGE_CHARACTERS = 2000
SERVICES = 100
_ENDED = {
    Outcome.SUCCEEDED: RunState.COMPLETED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.CANCELLED: RunState.CANCELLED,
}
_SHOWN_KINDS = ("build", "deploy")  # A stop or an early pull is no step of its own.

AT_ONCE_BYTES = 96 * 1024  # 0.2 ms of compression; 200 agents' answers are not to wait for more.

Boot = tuple[str, str]  # vm_id, boot_id
_NOTHING: Mapping[Boot, int] = {}


class ReceivedMessage(Protocol):
    @property
    def session(self) -> Session: ...

    @property
    def message(self) -> Numbered: ...


@dataclass(slots=True)
class Rows:
    chunks: list[NewChunk] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    marks: dict[EventKey, StepMark] = field(default_factory=dict)


async def of(batch: Iterable[ReceivedMessage], stored: Mapping[Boot, int] = _NOTHING) -> Rows:
    """The rows of a batch, in its order; a message that is there twice, or up to which `stored` goes, is left out.

    Others have their turn while large chunks are compressed.
    """
    rows, merger = Rows(), Merger()
    newest = dict(stored)
    for received in batch:
        session, message = received.session, received.message
        vm = session.who
        boot = (vm.vm_id, vm.boot_id)
        if message.seq <= newest.get(boot, 0):
            continue
        newest[boot] = message.seq
        if isinstance(message, Log):
            merger.add(vm, _facts(session, message).run_id, message)
        else:
            rows.events.append(_event(session, message))
            mark = _mark(session, message)
            if mark is not None:
                rows.marks[vm.vm_id, vm.boot_id, message.seq] = mark
    packed_bytes = 0
    for lines in merger.merged:
        packed_bytes += lines.size_bytes
        if packed_bytes > AT_ONCE_BYTES:
            packed_bytes = lines.size_bytes
            await asyncio.sleep(0)
        rows.chunks.append(lines.chunk())
    return rows


def needs_owner(session: Session, message: Numbered) -> bool:
    """Whether the VM's owner must hear this before it is confirmed: results of commands that this VM was given."""
    return isinstance(message, Result) and message.command_id in session.commands


def service_report(service: Service) -> ServiceReport:
    return ServiceReport(service.name[:100], service.status[:50], service.health[:50], service.exit_code)


def _service_json(service: Service) -> dict[str, str | int | None]:
    """A ServiceReport's fields, by hand: heartbeats bring many, and dataclasses.asdict costs three times as much."""
    report = service_report(service)
    return {"name": report.name, "status": report.status, "health": report.health, "exit_code": report.exit_code}


def services_json(services: Iterable[Service]) -> str:
    """Services as environments.services holds them."""
    return json.dumps([_service_json(service) for service in list(services)[:SERVICES]])


def _event(session: Session, message: Status | Result) -> NewEvent:
    vm = session.who
    if isinstance(message, Status):
        kind, body = "status", _status_json(message)
    else:
        kind = "result" if needs_owner(session, message) else "stray"
        body = json.dumps(dataclasses.asdict(_agent_event(session, message)))
    return NewEvent(vm.vm_id, vm.boot_id, message.seq, vm.team_id, kind, message.command_id[:200], body)


def _agent_event(session: Session, message: Result) -> AgentEvent:
    vm = session.who
    return AgentEvent(
        vm_id=vm.vm_id,
        boot_id=vm.boot_id,
        seq=message.seq,
        kind=AgentEventKind.RESULT,
        command_id=message.command_id,
        outcome=message.outcome,
        digest=message.digest[:200],
        failure=_failure(message.failure) if message.failure else None,
        services=tuple(service_report(service) for service in message.services[:SERVICES]),
        phases={name: message.phases[name] for name in STEPS if math.isfinite(message.phases.get(name, math.nan))},
    )


def _failure(failure: Failure) -> FailureReport:
    return FailureReport(
        step=failure.step[:50],
        message=failure.message[:MESSAGE_CHARACTERS],
        subject=failure.subject[:100],
        exit_code=failure.exit_code,
        tail=tuple(line[:TAIL_LINE_CHARACTERS] for line in failure.tail[-TAIL_LINES:]),
    )


def _status_json(message: Status) -> str:
    return json.dumps(
        {
            "state": message.state,
            "step": message.step[:50],
            "message": message.message[:MESSAGE_CHARACTERS],
            "services": [_service_json(service) for service in message.services[:SERVICES]],
        }
    )


def _mark(session: Session, message: Status | Result) -> StepMark | None:
    """How the timeline changes: a step began, or the command's running step ended."""
    facts = _facts(session, message)
    if facts.kind not in _SHOWN_KINDS or (isinstance(message, Status) and message.step not in STEPS):
        return None
    vm = session.who
    name, state = (message.step, RunState.RUNNING) if isinstance(message, Status) else ("", _ENDED[message.outcome])
    return StepMark(vm.environment_id, facts.run_id, facts.subject, vm.team_id, name, state)


def _facts(session: Session, message: Numbered) -> CommandFacts:
    return session.commands.get(message.command_id) or CommandFacts(session.who.run_id, "", "")
