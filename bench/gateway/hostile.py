"""Agents that mean harm, in a process of their own, so that good ones are not measured in its queue.

    python -m bench.gateway.hostile ORDERS

`flood`: half of the agents send LOG frames, half heartbeats, at TIMES their limits, as far as the kernel takes them.
`deaf`: agents beat and ask for answers, within the limits, and never read. Who is closed comes back at once.
One line "ready" tells that all are connected; SIGTERM ends it with one line of JSON, the `Report`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from agent.protocol import MAX_LOG_BYTES
from api.gateway.meter import BYTES_PER_S, MESSAGES_PER_S
from bench.gateway import frames, loglines
from bench.gateway.agents import Crowd, Line, Phase
from bench.gateway.beats import Quota
from bench.gateway.loglines import COMMAND_ID, STREAM
from bench.gateway.residents import Resident, heartbeat

TIMES = 10  # So much of what a gateway takes of one agent must not hurt the others.
DEAF_ASKS_PER_S = 150  # Together with the heartbeats below the limit: they do not flood, they only do not read.
DEAF_BEATS_PER_S = 10
DEAF_RECEIVE_BYTES = 4096  # The agent's own buffer, so that what it does not read stays with the gateway.
FLOOD, DEAF = "flood", "deaf"
TICK_S = 0.01
READY = "ready"
_NO_MASK = bytes(4)  # A mask like any other to the server, and the load need not touch 64 KiB for each frame.
_ANSWER = b"x" * 125  # The longest that a control frame carries (RFC 6455 section 5.5).


@dataclass(frozen=True, slots=True)
class Orders:
    """`residents_file`: JSON, a list of the agents' fields."""

    kind: str
    port: int
    residents_file: str

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Orders:
        return cls(**json.loads(text))


@dataclass(slots=True)
class Report:
    """`sent_bytes`: given to the kernel or waiting for it; `taken_log_bytes`: acknowledged; `closed`: by the server."""

    sent_bytes: int = 0
    taken_log_bytes: int = 0
    closed: int = 0
    seconds: float = 0.0


def write_residents(path: Path, residents: Sequence[Resident]) -> None:
    path.write_text(json.dumps([asdict(one) for one in residents]))


def log_message(seq: int, data: str) -> bytes:
    """`data` must need no escapes."""
    fields = f'"command_id":"{COMMAND_ID}","stream":"{STREAM}","data":"{data}","seq":{seq}'
    return f'{{"type":"LOG",{fields}}}'.encode()


def largest_data() -> str:
    """As much as one LOG may hold, of lines as builds write them."""
    lines = MAX_LOG_BYTES // loglines.LINE_BYTES
    return "".join(loglines.line(0, n) + "\\n" for n in range(lines))


class Hostile:
    def __init__(self, orders: Orders, residents: Sequence[Resident]) -> None:
        self._kind = orders.kind
        self._crowd = Crowd(orders.port, residents, heard_ack=self._acked)
        self._report = Report()
        self._beat = frames.masked(frames.TEXT, heartbeat())
        self._question = frames.masked(frames.PING, _ANSWER)
        self._data = largest_data()
        self._seqs = [0] * len(residents)
        self._acked_seqs = [0] * len(residents)
        self._quotas = [_quotas(orders.kind, number) for number in range(len(residents))]
        self._came_back: list[int] = []

    async def run(self) -> Report:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        numbers = range(len(self._seqs))
        if await self._crowd.come(numbers) < len(numbers):
            raise RuntimeError(f"hostile agents did not get in: {self._crowd.complaints[-1:]}")
        self._crowd.on_lost = lambda line: self._came_back.append(line.number)
        self._close_ears()
        print(READY, flush=True)
        began = time.monotonic()
        while not stopped.is_set():
            await self._turn(time.monotonic() - began)
            await asyncio.sleep(TICK_S)
        self._report.seconds = time.monotonic() - began
        return self._report

    async def _turn(self, passed_s: float) -> None:
        if self._came_back:
            again, self._came_back = self._came_back, []
            self._report.closed += len(again)
            await self._crowd.come(again)
            for number in again:
                self._seqs[number] = self._acked_seqs[number]
            self._close_ears()
        for line in self._crowd.lines.values():
            if line.phase is Phase.OPEN and not line.is_stuck:
                self._harm(line, passed_s)

    def _close_ears(self) -> None:
        if self._kind == DEAF:
            for line in self._crowd.lines.values():
                if line.transport is not None and line.transport.is_reading():
                    line.transport.pause_reading()
                    sock = line.transport.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_RECEIVE_BYTES)

    def _harm(self, line: Line, passed_s: float) -> None:
        """Send what is due; what the kernel did not take in time is forgotten."""
        quotas = self._quotas[line.number]
        for _ in range(quotas.questions.due(passed_s)):
            self._send(line, self._question)
        for _ in range(quotas.beats.due(passed_s)):
            self._send(line, self._beat)
        self._send_logs(line, quotas.log_bytes.due(passed_s))

    def _send(self, line: Line, frame: bytes) -> None:
        line.send(frame)
        self._report.sent_bytes += len(frame)

    def _send_logs(self, line: Line, size_bytes: int) -> None:
        while size_bytes > 0 and not line.is_stuck:
            self._seqs[line.number] += 1
            text = log_message(self._seqs[line.number], self._data)
            line.send(frames.head(frames.TEXT, len(text), _NO_MASK) + text)
            self._report.sent_bytes += len(text)
            size_bytes -= len(text)

    def _acked(self, number: int, seq: int) -> None:
        newly = max(0, seq - self._acked_seqs[number])  # A bare server welcomes everybody with 0.
        self._report.taken_log_bytes += newly * len(self._data)
        self._acked_seqs[number] += newly


@dataclass(frozen=True, slots=True)
class _Quotas:
    questions: Quota
    beats: Quota
    log_bytes: Quota


def _quotas(kind: str, number: int) -> _Quotas:
    if kind == DEAF:
        return _Quotas(Quota(DEAF_ASKS_PER_S), Quota(DEAF_BEATS_PER_S), Quota(0))
    if number % 2:
        return _Quotas(Quota(0), Quota(MESSAGES_PER_S * TIMES), Quota(0))
    return _Quotas(Quota(0), Quota(0), Quota(BYTES_PER_S * TIMES))


async def main(orders: Orders) -> None:
    residents = [Resident(**fields) for fields in json.loads(Path(orders.residents_file).read_text())]
    print(json.dumps(asdict(await Hostile(orders, residents).run())), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Orders.from_text(sys.argv[1])))
