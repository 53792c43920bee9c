"""Both ends of the edge for tests: a visitor that writes raw bytes, and an origin that records what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

WAIT_S = 30.0  # Every read of a test ends by then.

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]


@dataclass(slots=True)
class Message:
    """One HTTP message as it was on the wire; `body` with the chunk framing removed."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    raw: bytes = b""

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    def __getitem__(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


async def read_head(reader: Reader) -> Message:
    async with asyncio.timeout(WAIT_S):
        raw = await reader.readuntil(b"\r\n\r\n")
    line, *lines = raw.decode("latin-1")[:-4].split("\r\n")
    fields = [(name, value.strip()) for name, _, value in (field.partition(":") for field in lines)]
    return Message(line, fields, raw=raw)


async def read_chunk(reader: Reader) -> bytes:
    """One chunk's payload; b"" for the last one."""
    async with asyncio.timeout(WAIT_S):
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]


async def read_message(reader: Reader, *, bodyless: bool = False) -> Message:
    """A whole message; without length it ends with the connection when it is an answer."""
    message = await read_head(reader)
    if bodyless or message.line.startswith("HTTP/1.1 1"):
        return message
    if message["transfer-encoding"] == "chunked":
        while chunk := await read_chunk(reader):
            message.body += chunk
        return message
    async with asyncio.timeout(WAIT_S):
        if (length := message["content-length"]) is not None:
            message.body = await reader.readexactly(int(length))
        elif message.line.startswith("HTTP/"):
            message.body = await reader.read()
    return message


@dataclass(slots=True)
class Visitor:
    """A client connection."""

    reader: Reader
    writer: Writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    async def answer(self, *, bodyless: bool = False) -> Message:
        return await read_message(self.reader, bodyless=bodyless)

    async def rest(self) -> bytes:
        """Everything until the edge closes."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    async def ask(self, data: bytes) -> Message:
        await self.send(data)
        return await self.answer()


@asynccontextmanager
async def visitor(port: int) -> AsyncIterator[Visitor]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Visitor(reader, writer)
    finally:
        writer.close()


@dataclass(slots=True)
class Origin:
    """A server in a VM's place. `requests` holds what reached it, `connections` how many were opened."""

    port: int = 0
    connections: int = 0
    requests: list[Message] = field(default_factory=list)
    open_writers: set[Writer] = field(default_factory=set)
    seen: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def next_request(self) -> Message:
        async with asyncio.timeout(WAIT_S):
            return await self.seen.get()

    def note(self, message: Message) -> None:
        self.requests.append(message)
        self.seen.put_nowait(message)


def ok(body: bytes = b"ok") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def echo(origin: Origin, reader: Reader, writer: Writer) -> None:
    """Answers every request with its body, or `ok`."""
    while True:
        message = await read_message(reader)
        origin.note(message)
        writer.write(ok(message.body or b"ok"))


@asynccontextmanager
async def origin(script: Script | None = None, port: int = 0) -> AsyncIterator[Origin]:
    """An origin that runs `script` for each connection, or `echo`."""
    made = Origin()

    async def serve(reader: Reader, writer: Writer) -> None:
        made.connections += 1
        made.open_writers.add(writer)
        try:
            await (script(reader, writer) if script else echo(made, reader, writer))
        except (OSError, EOFError):
            pass  # The edge closed, as it may.
        finally:
            made.open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in list(made.open_writers):
            writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process, or the edge, brings about and that has no event of its own."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
