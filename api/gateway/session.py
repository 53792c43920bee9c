"""One agent's session: who it is, how far its numbered messages got, which commands it was given. No I/O.

A session begins with the socket, is WAITING for its HELLO, CHECKING while the database is asked, OPEN from WELCOME on
and CLOSED when it was refused, replaced, revoked or lost. What outlives it is in Postgres: the agent comes back, learns
`acked_seq` and sends the rest again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.protocol import VERSION, Ack, Log, Message, Refused, Result, Status, encode
from api.gateway.websocket import FULL, GAP, AgentSocket
from stagely.db.queries.agents import CommandRow, EnrolledVm

UNSTORED_LIMIT_BYTES = 128 * 1024  # Per agent; beyond it the socket is not read until the batcher caught up.

Numbered = Log | Status | Result


class Phase(enum.Enum):
    WAITING = enum.auto()
    CHECKING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class SequenceGap(Exception):
    """A numbered message came too early: something before it was lost on this line."""


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """What the gateway remembers of a command: its run, its kind, and the build target it is about ("" for none)."""

    run_id: str
    kind: str
    subject: str


class Session:
    __slots__ = (
        "_received_seq",
        "_stored_seq",
        "_unstored_bytes",
        "_untaken",
        "acked_seq",
        "commands",
        "has_hole",
        "heard_at",
        "phase",
        "phase_since",
        "pushed",
        "settled_at",
        "show_again_at",
        "shown",
        "socket",
        "version",
        "vm",
    )

    def __init__(self, socket: AgentSocket, now: float) -> None:
        self.socket = socket
        self.phase = Phase.WAITING
        self.phase_since = now
        self.heard_at = now
        self.vm: EnrolledVm | None = None
        self.version = VERSION  # What was agreed with its HELLO.
        self.commands: dict[str, CommandFacts] = {}
        self.pushed: set[str] = set()
        self.shown = 0  # What the heartbeat that was written last said (api/gateway/beats.py).
        self.show_again_at = 0.0  # From when on a heartbeat is written although it says the same.
        self.settled_at = 0.0  # When its workflow will have written what the newest result said.
        self.has_hole = False  # Postgres refused a part: nothing behind it is stored, or the hole would be final.
        self.acked_seq = 0
        self._received_seq = 0
        self._stored_seq = 0
        self._unstored_bytes = 0
        self._untaken: list[int] = []

    @property
    def who(self) -> EnrolledVm:
        """The VM of an open session."""
        assert self.vm is not None
        return self.vm

    @property
    def untaken(self) -> list[int]:
        """Numbers of stored results that the owner's workflow has not taken yet."""
        return self._untaken

    def enter(self, phase: Phase, now: float) -> None:
        self.phase, self.phase_since = phase, now

    def open(self, vm: EnrolledVm, now: float) -> None:
        """The HELLO was good: numbered messages go on behind what is stored."""
        self.vm = vm
        self.acked_seq = self._received_seq = self._stored_seq = vm.acked_seq
        self.enter(Phase.OPEN, now)

    def learn(self, rows: list[CommandRow]) -> None:
        """Commands of this VM, to know later what its messages are about."""
        for row in rows:
            self.commands[row.id] = CommandFacts(row.run_id, row.kind, row.subject)

    def take(self, message: Numbered, size_bytes: int) -> bool:
        """Whether this message is new and must be stored. Raises SequenceGap when one before it is missing."""
        if message.seq <= self._received_seq:
            return False
        if message.seq != self._received_seq + 1:
            raise SequenceGap(f"expected seq {self._received_seq + 1}, got {message.seq}")
        self._received_seq = message.seq
        self._unstored_bytes += size_bytes
        if self._unstored_bytes > UNSTORED_LIMIT_BYTES:
            self.socket.pause(FULL)
        return True

    def note_stored(self, message: Numbered, size_bytes: int, *, needs_owner: bool) -> None:
        """The message is committed; a result then waits for its owner before it is confirmed."""
        self._stored_seq = max(self._stored_seq, message.seq)
        self._unstored_bytes -= size_bytes
        if needs_owner:
            self._untaken.append(message.seq)
        if self._unstored_bytes <= UNSTORED_LIMIT_BYTES // 2:
            self.socket.resume(FULL)

    def note_taken(self, seq: int) -> None:
        """The owner took the result with this number."""
        if seq in self._untaken:
            self._untaken.remove(seq)

    def confirm(self) -> None:
        """Send an Ack when more can be forgotten than the agent knows."""
        seq = min(self._stored_seq, min(self._untaken) - 1) if self._untaken else self._stored_seq
        if seq > self.acked_seq:
            self.acked_seq = seq
            self.send(Ack(seq))

    def send(self, message: Message) -> None:
        self.send_frame(encode(message, self.version))

    def send_frame(self, frame: str) -> None:
        """Send what `encode` made."""
        if self.phase is not Phase.CLOSED:
            self.socket.send(frame)

    def refuse(self, code: str, text: str, close_code: int, now: float, *, final: bool = False) -> None:
        """Tell the agent why, and close."""
        self.send(Refused(code=code, message=text, final=final))
        self.close(close_code, code, now)

    def refuse_gap(self, error: SequenceGap, now: float) -> None:
        self.refuse("gap", str(error), GAP, now)

    def close(self, close_code: int, reason: str, now: float) -> None:
        if self.phase is not Phase.CLOSED:
            self.enter(Phase.CLOSED, now)
            self.socket.close(close_code, reason)
