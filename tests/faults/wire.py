"""Calls from a worker that may be killed to the outside world in the test's own process, which survives it.

Pickled requests over a Unix socket: both ends are this test's own processes.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Call:
    """`target` is an object of the outside (cloud, forge, director); `unit` whose effect this is."""

    target: str
    method: str
    arguments: tuple[Any, ...]  # Any: each method's own.
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`dies`: the effect is done, and the caller must not live to see the answer."""

    value: Any = None  # Any: each method's own.
    error: BaseException | None = None
    dies: bool = False


Handler = Callable[[Call], Awaitable[Answer]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Answer calls until the server is closed; each connection in its order."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                call: Call = pickle.loads(await _read(reader))
                await _write(writer, await handler(call))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # The worker was killed.

    return await asyncio.start_unix_server(talk, path)


class Line:
    """A worker's way out. Calls run side by side, each on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, call: Call) -> Any:  # Any: the method's own.
        """The answer, or its error raised; or this process ends here and now."""
        pair = self._idle.pop() if self._idle else await asyncio.open_unix_connection(self._path)
        await _write(pair[1], call)
        answer: Answer = pickle.loads(await _read(pair[0]))
        self._idle.append(pair)
        if answer.dies:
            die()
        if answer.error is not None:
            raise answer.error
        return answer.value


def die() -> NoReturn:
    """What the kernel does to a worker on a machine that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


async def _write(writer: asyncio.StreamWriter, message: Call | Answer) -> None:
    body = pickle.dumps(message)
    writer.write(_LENGTH.pack(len(body)) + body)
    await writer.drain()
