"""Stands between a client and the Docker Engine's Unix socket, and loses the reply of one create when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

_CREATE = b"POST /containers/create"


class _Cut(Exception):
    """The connection ends here, because one side has gone or the test wanted it so."""


class DockerProxy:
    """Bytes pass unchanged. Armed, it cuts the client's connection at the next create, before or after its effect."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._armed: str = ""

    def lose_next_create(self, *, after: bool) -> None:
        self._armed = "after" if after else "before"

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._upstream)
        passing = _Passing()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, engine_writer, passing))
                group.create_task(_answers(engine_reader, writer, passing))
        except* (ConnectionError, _Cut):
            pass  # Closing both sides below is all there is to do.
        finally:
            writer.close()
            engine_writer.close()

    async def _requests(self, client: asyncio.StreamReader, engine: asyncio.StreamWriter, passing: _Passing) -> None:
        while chunk := await client.read(65536):
            if self._armed and chunk.startswith(_CREATE):
                passing.swallow, self._armed = self._armed == "after", ""
                if not passing.swallow:
                    raise _Cut
            engine.write(chunk)
            await engine.drain()
        raise _Cut


class _Passing:
    """`swallow`: the Engine's next answer must not reach the client."""

    swallow = False


async def _answers(engine: asyncio.StreamReader, client: asyncio.StreamWriter, passing: _Passing) -> None:
    while chunk := await engine.read(65536):
        if passing.swallow:
            raise _Cut
        client.write(chunk)
        await client.drain()
    raise _Cut
