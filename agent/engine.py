"""The Docker Engine's HTTP interface on its local socket: only reading, and cheap enough to ask often.

Starting the `docker` command costs 30 to 100 ms of CPU each time; a question on the socket costs one. Requests are
HTTP/1.0, so that an answer is simply everything until the end, without chunks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import (
    Any,  # The Engine's answers are JSON objects with hundreds of keys; parsing code names those it reads.
)
from urllib.parse import quote, urlencode

ANSWER_TIMEOUT_S = 30.0  # A loaded Engine answers within a second; one that unpacks images may take several.
CHUNK_BYTES = 64 * 1024
_LIMIT_BYTES = 1024 * 1024


class EngineError(Exception):
    """The Engine refused a question or is away. `status` is its HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Engine:
    """Questions to one Docker Engine."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def get(self, path: str, **query: str) -> Any:
        """The answer's JSON. Raises EngineError."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._request(_target(path, query)) as answer:
                return json.loads(await answer.read() or b"null")
        except TimeoutError as error:
            raise EngineError(0, f"the Docker Engine did not answer {path} within {ANSWER_TIMEOUT_S:g} s") from error
        except ValueError as error:
            raise EngineError(0, f"the Docker Engine answered {path} with something that is not JSON") from error

    async def stream(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The answer's bytes until the Engine ends it; first of all b"", once it has agreed. Raises EngineError."""
        async with self._request(_target(path, query)) as answer:
            yield b""
            while chunk := await answer.read(CHUNK_BYTES):
                yield chunk

    async def containers(self, project: str) -> list[dict[str, Any]]:
        """Every container of a Compose project, `docker inspect` form. One that vanishes meanwhile is left out."""
        filters = json.dumps({"label": [f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False"]})
        listed = await self.get("/containers/json", all="1", filters=filters)
        inspected = [await self.inspect(entry["Id"]) for entry in listed]
        return [container for container in inspected if container is not None]

    async def inspect(self, container: str) -> dict[str, Any] | None:
        return await self._get_or_none(f"/containers/{quote(container, safe='')}/json")

    async def image(self, reference: str) -> dict[str, Any] | None:
        """What is known of an image that is here; None when it is not."""
        return await self._get_or_none(f"/images/{quote(reference, safe='/:@')}/json")

    async def tail(self, container: str, is_tty: bool, lines: int) -> list[str]:
        """The last lines that a container wrote, stdout and stderr together."""
        parts = bytearray()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            source = self.stream(f"/containers/{container}/logs", stdout="1", stderr="1", tail=str(lines))
            async for _, entry in log_entries(source, is_tty):
                parts += entry
        return parts.decode(errors="replace").replace("\r\n", "\n").splitlines()[-lines:]

    async def _get_or_none(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self.get(path)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    @asynccontextmanager
    async def _request(self, target: str) -> AsyncIterator[asyncio.StreamReader]:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=_LIMIT_BYTES)
        except OSError as error:
            raise EngineError(0, f"the Docker Engine is not there ({self._socket}: {error.strerror})") from error
        try:
            writer.write(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            await _check_head(reader, target)
            yield reader
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise EngineError(0, "the Docker Engine broke off in the middle of an answer") from error
        finally:
            writer.close()


async def log_entries(source: AsyncIterator[bytes], is_tty: bool) -> AsyncIterator[tuple[int, bytes]]:
    """A container's log as (1 stdout or 2 stderr, one entry). A container with a terminal has one stream, lines here.

    Source: Docker Engine API, "Attach to a container", stream format.
    """
    buffer = bytearray()
    async for chunk in source:
        buffer += chunk
        if is_tty:
            end = buffer.rfind(b"\n") + 1
            for line in bytes(buffer[:end]).splitlines(keepends=True):
                yield 1, line
            del buffer[:end]
            continue
        while len(buffer) >= 8 and len(buffer) >= 8 + (size := int.from_bytes(buffer[4:8], "big")):
            yield buffer[0], bytes(buffer[8 : 8 + size])
            del buffer[: 8 + size]
    if is_tty and buffer:
        yield 1, bytes(buffer)


def _target(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


async def _check_head(reader: asyncio.StreamReader, target: str) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status >= 300:
        said = await reader.read(CHUNK_BYTES)
        raise EngineError(status, f"the Docker Engine refused {target.split('?')[0]}: {_message(said)}")


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said.decode(errors="replace")[:300]
