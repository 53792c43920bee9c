"""The line between an agent and its gateway, in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """A relay to `gateway_port`. `cut` ends every connection at once, `is_open` False refuses new ones."""

    gateway_port: int
    port: int = 0
    is_open: bool = True
    carried: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens on `port` meanwhile."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def until_more(self, bytes_more: int) -> None:
        """Wait until the agent has sent so much more."""
        wanted = self.carried + bytes_more
        while self.carried < wanted:
            self.changed.clear()
            await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.gateway_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, there_writer, is_from_agent=True))
            group.create_task(self._carry(there_reader, writer, is_from_agent=False))
        self._writers -= {writer, there_writer}

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_from_agent: bool) -> None:
        try:
            while chunk := await source.read(65536):
                to.write(chunk)
                await to.drain()
                if is_from_agent:
                    self.carried += len(chunk)
                    self.changed.set()
        except OSError:
            pass  # Cut, from one side or the other.
        finally:
            to.transport.abort()
