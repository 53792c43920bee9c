"""Messages become chunks: as few as may be, in order, each message once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import cast

from agent.protocol import AgentState, Log, Status
from api.gateway import rows
from api.gateway.merging import CHUNK_BYTES
from api.gateway.session import Numbered, Session
from api.gateway.websocket import AgentSocket
from stagely.db.queries.agents import CommandRow, EnrolledVm
from stagely.packing import unpack

VM = EnrolledVm(
    vm_id="vm-1", team_id="team", project_id="prj", environment_id="env-1", run_id="run-1", role="builder",
    owner_workflow_id="run/1", repo_full_name="local/guestbook", boot_id="boot-1", acked_seq=0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    session: Session
    message: Numbered


def a_session(vm: EnrolledVm = VM) -> Session:
    session = Session(cast("AgentSocket", None), time.monotonic())  # cast: nothing is sent here.
    session.open(vm, time.monotonic())
    session.learn([CommandRow("run-2/b-1/1", vm.vm_id, "run-2", "build", "api", None)])
    return session


def made(*batch: tuple[Session, Numbered]) -> list[tuple[str, int, int, str, str, str]]:
    """(vm_id, first_seq, seq, run_id, stream, text) of each chunk."""
    return chunks_of(asyncio.run(rows.of([Received(session, message) for session, message in batch])))


def chunks_of(found: rows.Rows) -> list[tuple[str, int, int, str, str, str]]:
    return [(c.vm_id, c.first_seq, c.seq, c.run_id, c.stream, unpack(c.codec, c.data).decode()) for c in found.chunks]


def test_messages_of_one_stream_become_one_chunk_with_the_last_number() -> None:
    session = a_session()

    chunks = made((session, Log(4, "", "deploy", "one\n")), (session, Log(5, "", "deploy", "zwei ✓\n")))

    assert chunks == [("vm-1", 4, 5, "run-1", "deploy", "one\nzwei ✓\n")]


def test_another_stream_between_keeps_its_place() -> None:
    session = a_session()
    messages = [Log(1, "", "service/a", "1\n"), Log(2, "", "service/b", "2\n"), Log(3, "", "service/a", "3\n")]

    chunks = made(*((session, message) for message in messages))

    assert chunks == [
        ("vm-1", 1, 1, "run-1", "service/a", "1\n"),
        ("vm-1", 2, 2, "run-1", "service/b", "2\n"),
        ("vm-1", 3, 3, "run-1", "service/a", "3\n"),
    ]


def test_a_step_between_divides_no_chunk() -> None:
    session = a_session()
    step = Status(2, "", AgentState.BUILDING, "build")

    chunks = made((session, Log(1, "", "deploy", "1\n")), (session, step), (session, Log(3, "", "deploy", "3\n")))

    assert chunks == [("vm-1", 1, 3, "run-1", "deploy", "1\n3\n")]


def test_commands_of_two_runs_share_no_chunk() -> None:
    session = a_session()

    chunks = made((session, Log(1, "run-2/b-1/1", "build/api", "1\n")), (session, Log(2, "", "build/api", "2\n")))

    assert chunks == [("vm-1", 1, 1, "run-2", "build/api", "1\n"), ("vm-1", 2, 2, "run-1", "build/api", "2\n")]


def test_agents_that_speak_in_turns_have_a_chunk_each() -> None:
    one, other = a_session(), a_session(replace(VM, vm_id="vm-2"))

    chunks = made(
        (one, Log(1, "", "deploy", "1\n")),
        (other, Log(1, "", "deploy", "a\n")),
        (one, Log(2, "", "deploy", "2\n")),
        (other, Log(2, "", "deploy", "b\n")),
    )

    assert chunks == [
        ("vm-1", 1, 2, "run-1", "deploy", "1\n2\n"),
        ("vm-2", 1, 2, "run-1", "deploy", "a\nb\n"),
    ]


def test_a_chunk_is_never_larger_than_its_limit_unless_a_single_message_is() -> None:
    session = a_session()
    half, huge = "h" * (CHUNK_BYTES // 2), "ü" * CHUNK_BYTES

    chunks = made(*((session, Log(n, "", "deploy", text)) for n, text in enumerate([half, half, "x", huge, "y"], 1)))

    assert [(first, last, len(text.encode())) for _, first, last, _, _, text in chunks] == [
        (1, 2, CHUNK_BYTES),
        (3, 3, 1),
        (4, 4, 2 * CHUNK_BYTES),
        (5, 5, 1),
    ]


def test_two_sessions_of_one_boot_are_told_apart_by_nothing_but_the_numbers() -> None:
    replaced, session = a_session(), a_session()

    chunks = made(
        (replaced, Log(1, "", "deploy", "1\n")),
        (replaced, Log(2, "", "deploy", "2\n")),
        (session, Log(2, "", "deploy", "2\n")),
        (session, Log(3, "", "deploy", "3\n")),
    )

    assert chunks == [("vm-1", 1, 3, "run-1", "deploy", "1\n2\n3\n")]


def test_what_is_stored_is_left_out() -> None:
    session = a_session()
    batch = [Received(session, Log(n, "", "deploy", f"{n}\n")) for n in range(1, 5)]

    chunks = chunks_of(asyncio.run(rows.of(batch, {("vm-1", "boot-1"): 2, ("vm-2", "boot-1"): 9})))

    assert chunks == [("vm-1", 3, 4, "run-1", "deploy", "3\n4\n")]
