"""Preview VMs for the edge's tests: a real agent's ingress with a certificate, and strangers at its address."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.ingress import Ingress
from agent.protocol import Exposed
from tests.certificates import Machine
from tests.edge.wire import WAIT_S, Reader, Writer

WEB = Exposed("web", 80, "http://h.localhost")


@asynccontextmanager
async def ingress_of(machine: Machine, leads_to: int) -> AsyncIterator[int]:
    """The port of this machine's ingress, before a service at that port of this computer."""
    ingress = Ingress(
        lambda _: ("127.0.0.1", leads_to), "127.0.0.1", first_port=0, tls=lambda: machine.certificate.context
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ingress.run())
        ingress.expose((WEB,))
        async with asyncio.timeout(WAIT_S):
            while not ingress.ports:  # noqa: ASYNC110  # The listener tells nobody when it is there.
                await asyncio.sleep(0.01)
        yield ingress.ports[0]
        running.cancel()


@dataclass(slots=True)
class Stranger:
    """Another machine that got the VM's former address. `heard`: the bytes of each connection, beneath any TLS."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    opened: list[bytes] = field(default_factory=list)
    """What it could read of them, where it speaks TLS."""


@asynccontextmanager
async def stranger(answer: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[Stranger]:
    """Listens in clear, says `answer` to the first bytes, or answers by TLS; keeps all that it is sent."""
    here = Stranger()

    async def listen(reader: Reader, writer: Writer) -> None:
        place = len(here.heard)
        here.heard.append(b"")
        inside = _Inside(tls) if tls is not None else None
        try:
            while data := await reader.read(65536):
                here.heard[place] += data
                writer.write(inside.answer(data) if inside is not None else answer)
        except ConnectionError:
            pass  # The edge may break off without a word.
        finally:
            here.opened.append(inside.read if inside is not None else here.heard[place])
            writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    async with server:
        yield here


class _Inside:
    """The stranger's end of TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.read = b""

    def answer(self, data: bytes) -> bytes:
        self._in.write(data)
        try:
            self._tls.do_handshake()
            self.read += self._tls.read(65536)
        except ssl.SSLError:
            pass  # It wants more, or was refused: what it read so far counts.
        return self._out.read()
