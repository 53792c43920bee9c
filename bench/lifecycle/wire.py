"""What driver and worker process tell each other over a Unix socket: one JSON object a line.

Standard output is no place for it: Temporal's SDK writes its own warnings there.
"""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass


class Kind(enum.StrEnum):
    """To the worker: CLOSE_ALL, COUNT. From it: SERVING, CLOSED_ALL, COUNTED; of `bare` also ORDERED and READY."""

    SERVING = "serving"
    CLOSE_ALL = "close_all"
    CLOSED_ALL = "closed_all"
    COUNT = "count"
    COUNTED = "counted"
    ORDERED = "ordered"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Line:
    """`owner` and `command_id`: who waits for which answer of an agent. `made`, `alive`: VMs of the cloud."""

    kind: Kind
    pr: int = 0
    owner: str = ""
    command_id: str = ""
    made: int = 0
    alive: int = 0


def encode(line: Line) -> bytes:
    return json.dumps(asdict(line)).encode() + b"\n"


def decode(text: bytes) -> Line:
    fields = json.loads(text)
    return Line(**{**fields, "kind": Kind(fields["kind"])})


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[Line]:
    """Until the other side closes."""
    while text := await reader.readline():
        yield decode(text)
