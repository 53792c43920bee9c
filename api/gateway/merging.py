"""Log messages into chunks: what an agent says of one stream in a row becomes one row of the database. Pure.

Fewer and larger rows are cheaper to write, smaller on disk and quicker to read back.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol import MAX_LOG_BYTES, Log
from stagely.db.queries.agents import EnrolledVm
from stagely.db.queries.intake import NewChunk
from stagely.packing import pack

CHUNK_BYTES = MAX_LOG_BYTES  # Readers hold a page of 500 chunks in memory.
STREAM_CHARACTERS = 200


@dataclass(slots=True)
class Lines:
    """Messages of one stream, in their order, with nothing of another stream between them."""

    vm: EnrolledVm
    run_id: str
    stream: str
    first_seq: int
    seq: int
    parts: list[bytes]
    size_bytes: int

    def takes(self, run_id: str, stream: str, size_bytes: int) -> bool:
        fits = self.size_bytes + size_bytes <= CHUNK_BYTES
        return fits and self.stream == stream and self.run_id == run_id

    def append(self, seq: int, data: bytes) -> None:
        self.seq = seq
        self.parts.append(data)
        self.size_bytes += len(data)

    def chunk(self) -> NewChunk:
        codec, data = pack(b"".join(self.parts))
        vm, stream = self.vm, self.stream[:STREAM_CHARACTERS]
        return NewChunk(
            vm.vm_id, vm.boot_id, self.first_seq, self.seq, vm.environment_id, self.run_id, stream, codec, data
        )


class Merger:
    """Takes the messages of any number of agents, each agent's in its order.

    `merged`: in the order of their first messages; of one agent that is the order in which it said them.
    """

    def __init__(self) -> None:
        self.merged: list[Lines] = []
        self._newest: dict[str, Lines] = {}

    def add(self, vm: EnrolledVm, run_id: str, message: Log) -> None:
        """`run_id` is the run that the message is about."""
        data = message.data.encode()
        lines = self._newest.get(vm.vm_id)
        if lines is not None and lines.vm.boot_id == vm.boot_id and lines.takes(run_id, message.stream, len(data)):
            lines.append(message.seq, data)
            return
        lines = Lines(vm, run_id, message.stream, message.seq, message.seq, [data], len(data))
        self._newest[vm.vm_id] = lines
        self.merged.append(lines)
