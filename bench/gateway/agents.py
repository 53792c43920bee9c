"""Simulated agents: one socket each on one asyncio.Protocol, no task, queue or timer of their own.

A `Crowd` opens their lines and hears what comes on them; scenarios tell it what to do about that.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.gateway import frames
from bench.gateway.frames import BadServer, Frame
from bench.gateway.residents import Resident

DIALS_AT_ONCE = 64
UPGRADE_TIMEOUT_S = 15.0  # As the agent's own (agent/connection.py).
WELCOME_TIMEOUT_S = 60.0
WELCOME = b'{"type":"WELCOME"'
ACK = b'{"type":"ACK"'
_ADDRESSES = 200  # Source addresses on loopback, so that waiting sockets of one do not take the ports of all.
_TIME = struct.Struct("!d")


class Phase(enum.Enum):
    DIALLING = enum.auto()
    UPGRADED = enum.auto()
    OPEN = enum.auto()
    GONE = enum.auto()


class Line(asyncio.Protocol):
    """One agent's connection. `waiter` is set when the phase that is waited for has come, or the line is gone."""

    __slots__ = ("_awaited", "_crowd", "_rest", "is_stuck", "number", "phase", "transport", "waiter")

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.number = number
        self.phase = Phase.DIALLING
        self.transport: asyncio.Transport | None = None
        self.is_stuck = False
        self.waiter: asyncio.Future[None] | None = None
        self._awaited = Phase.OPEN
        self._crowd = crowd
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # A stream connection gives nothing else.
        self.transport.write(self._crowd.began())

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        try:
            if self.phase is Phase.DIALLING:
                head, ended, data = data.partition(frames.HEAD_END)
                if not ended:
                    self._rest = head
                    return
                frames.check_upgraded(head)
                self.enter(Phase.UPGRADED)
                self._crowd.upgraded(self, head)
            found, self._rest = frames.cut(data)
        except BadServer as error:
            self._crowd.complaints.append(str(error))
            self.abort()
            return
        for frame in found:
            self._take(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        was = self.phase
        self.transport = None
        self.enter(Phase.GONE)
        self._crowd.ended(self, was)

    def pause_writing(self) -> None:
        self.is_stuck = True

    def resume_writing(self) -> None:
        self.is_stuck = False

    def send(self, data: bytes) -> None:
        """Whole frames."""
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        if self.waiter is not None and not self.waiter.done() and phase in (self._awaited, Phase.GONE):
            self.waiter.set_result(None)

    async def reached(self, phase: Phase) -> bool:
        """Wait until the line is in this phase; False when it is gone instead."""
        if self.phase not in (phase, Phase.GONE, Phase.OPEN):
            self._awaited, self.waiter = phase, asyncio.get_running_loop().create_future()
            await self.waiter
            self.waiter = None
        return self.phase in (phase, Phase.OPEN)

    def _take(self, frame: Frame) -> None:
        if frame.opcode == frames.TEXT:
            if self.phase is Phase.UPGRADED and frame.payload.startswith(WELCOME):
                self.enter(Phase.OPEN)
            self._crowd.heard(self, frame.payload)
        elif frame.opcode == frames.PONG:
            self._crowd.answered(self, frame.payload)
        elif frame.opcode == frames.PING:
            self.send(frames.masked(frames.PONG, frame.payload))
        elif frame.opcode == frames.CLOSE and self.transport is not None:
            self._crowd.closed(self, frame.payload)
            self.send(frames.masked(frames.CLOSE, frame.payload[:2]))
            self.transport.close()


@dataclass(slots=True)
class Crowd:
    """All agents of one scenario.

    `heard_ack` is told (number, seq) of every WELCOME and ACK, `on_lost` every line that was open.

    `lost`: lines that were open and ended without our doing; `answers_s`: seconds from a probe to its answer.
    """

    port: int
    residents: Sequence[Resident] = ()
    says_hello: bool = True
    heard_ack: Callable[[int, int], None] | None = None
    lines: dict[int, Line] = field(default_factory=dict)
    lost: int = 0
    refusals: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    unanswered: int = 0
    is_leaving: bool = False
    request: bytes = b""
    on_lost: Callable[[Line], None] | None = None
    _living: int = 0
    _empty: asyncio.Event = field(default_factory=asyncio.Event)
    _all_heard: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.request = frames.upgrade_request(f"127.0.0.1:{self.port}")

    # Called by the lines.

    def began(self) -> bytes:
        """A line has its socket; what it says first."""
        self._living += 1
        return self.request

    def upgraded(self, line: Line, head: bytes) -> None:
        if self.says_hello:
            line.send(frames.masked(frames.TEXT, self.residents[line.number].hello(frames.nonce_of(head))))

    def heard(self, line: Line, text: bytes) -> None:
        if text.startswith(ACK):
            if self.heard_ack is not None:
                self.heard_ack(line.number, ack_of(text))
        elif text.startswith(WELCOME):
            self.residents[line.number].welcomed()
            if self.heard_ack is not None:
                self.heard_ack(line.number, int(json.loads(text)["acked_seq"]))
        else:
            self.refusals.append(text[:200].decode(errors="replace"))

    def answered(self, line: Line, payload: bytes) -> None:
        self.unanswered -= 1
        self.answers_s.append(time.monotonic() - _TIME.unpack(payload)[0])
        if not self.unanswered:
            self._all_heard.set()

    def closed(self, line: Line, payload: bytes) -> None:
        if not self.is_leaving:
            self.complaints.append(f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:].decode()!r}")

    def ended(self, line: Line, was: Phase) -> None:
        self._living -= 1
        if not self._living:
            self._empty.set()
        if not self.is_leaving and was in (Phase.OPEN, Phase.UPGRADED):
            self.lost += 1
        if self.on_lost is not None and was is Phase.OPEN:
            self.on_lost(line)

    # Called by the scenarios.

    async def come(self, numbers: Iterable[int]) -> int:
        """Open a line for each; how many were welcomed (or upgraded, for those who say no HELLO)."""
        self.is_leaving = False
        waiting = iter(numbers)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._open_in_turn(waiting)) for _ in range(DIALS_AT_ONCE)]
        return sum(task.result() for task in tasks)

    async def connect(self, number: int) -> Line:
        """A new line for this agent, welcomed (or upgraded, for those who say no HELLO) when it returns.

        Raises OSError, ConnectionResetError when the server ended it, or TimeoutError; nothing is left of it then.
        """
        line = Line(self, number)
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT_S):
                await self._dial(line)
                await _reached(line, Phase.UPGRADED)
            if self.says_hello:
                async with asyncio.timeout(WELCOME_TIMEOUT_S):
                    await _reached(line, Phase.OPEN)
        except BaseException:
            line.abort()
            raise
        self.lines[number] = line
        return line

    async def _dial(self, line: Line) -> None:
        source = (f"127.0.1.{1 + line.number % _ADDRESSES}", 0)
        await asyncio.get_running_loop().create_connection(lambda: line, "127.0.0.1", self.port, local_addr=source)

    async def leave(self) -> None:
        """End every line at once and without a close frame, every second one by a reset."""
        self.is_leaving = True
        for line in self.lines.values():
            if line.transport is None:
                continue
            if line.number % 2:
                line.transport.close()
            else:
                _reset(line.transport)
        if self._living:
            self._empty.clear()
            await self._empty.wait()  # Bounded: both ways end a line in the next turns of the loop.
        self.lines.clear()

    def probe(self, line: Line) -> None:
        """Ask for an answer behind all that this line has sent: a server works through a line in order."""
        self.unanswered += 1
        line.send(frames.masked(frames.PING, _TIME.pack(time.monotonic())))

    async def all_answered(self, deadline_s: float) -> bool:
        """Wait until every probe has its answer; False when the deadline passes, as it does for a line that is gone."""
        if self.unanswered:
            self._all_heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._all_heard.wait()
        return not self.unanswered

    @property
    def open_count(self) -> int:
        return sum(line.phase is Phase.OPEN for line in self.lines.values())

    async def _open_in_turn(self, numbers: Iterable[int]) -> int:
        opened = 0
        for number in numbers:
            try:
                await self.connect(number)
                opened += 1
            except OSError as error:
                self.complaints.append(f"agent {number} did not get in: {type(error).__name__} {error}")
        return opened


async def _reached(line: Line, phase: Phase) -> None:
    if not await line.reached(phase):
        raise ConnectionResetError(f"the server ended the line before it was {phase.name.lower()}")


def ack_of(text: bytes) -> int:
    """The seq of an ACK, whose only number it is."""
    return int(text.rpartition(b":")[2].rstrip(b"} "))


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    # socket(7), SO_LINGER: closing with no time to linger resets the connection.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
