"""The preview's front door: ports on the machine that lead to the exposed services' containers, byte for byte.

Port INGRESS_PORT + i belongs to the i-th exposed service. Who connects is held back when the other side is slow, one
side may finish sending before the other, and a container that was replaced is found again at the next connection.
Once the machine has a certificate its ports speak TLS and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from agent.protocol import INGRESS_PORT, Exposed
from agent.relay import Half, Visitor
from agent.tls import TlsServer

CONNECT_TIMEOUT_S = 5.0  # A container on this machine answers within a millisecond or not at all.
CONNECT_TRIES = 10  # A service that is being replaced is away for about a second.
RETRY_S = 0.2
BACKLOG = 1024
BIND_RETRY_S = 1.0

log = logging.getLogger("stagely.agent.ingress")

Address = tuple[str, int]
Resolve = Callable[[Exposed], Address | None]
Tls = Callable[[], ssl.SSLContext | None]


def _plain() -> None:
    return None


class Ingress:
    """Listens for what `expose` was told last. `run` does the work until cancelled and closes every port then.

    `tls` is asked at each new connection: with what to speak TLS, or None for plain TCP.
    """

    def __init__(
        self, resolve: Resolve, host: str = "0.0.0.0", first_port: int = INGRESS_PORT, tls: Tls = _plain
    ) -> None:
        self._resolve = resolve
        self._tls = tls
        self._host = host
        self._first_port = first_port
        self._wanted: tuple[Exposed, ...] = ()
        self._changed = asyncio.Event()
        self._servers: list[tuple[_Door, asyncio.Server]] = []

    def expose(self, exposed: tuple[Exposed, ...]) -> None:
        self._wanted = exposed
        self._changed.set()

    @property
    def ports(self) -> tuple[int, ...]:
        """Those that listen now, in the order of what is exposed."""
        return tuple(server.sockets[0].getsockname()[1] for _, server in self._servers)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._reconcile(group)
        finally:
            for _, server in self._servers:
                server.close()

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        """Keep the ports that are open: their doors only learn whom they lead to now."""
        wanted = self._wanted
        for _, server in self._servers[len(wanted) :]:
            server.close()
        del self._servers[len(wanted) :]
        for (door, _), exposed in zip(self._servers, wanted, strict=False):
            door.exposed = exposed
        try:
            for exposed in wanted[len(self._servers) :]:
                self._servers.append(await self._listen(exposed, group))
        except OSError as error:
            log.warning("port %d is not free, trying again: %s", self._first_port + len(self._servers), error)
            await asyncio.sleep(BIND_RETRY_S)
            self._changed.set()

    async def _listen(self, exposed: Exposed, group: asyncio.TaskGroup) -> tuple[_Door, asyncio.Server]:
        door = _Door(exposed, self._resolve, self._tls, group)
        port = self._first_port + len(self._servers) if self._first_port else 0
        loop = asyncio.get_running_loop()
        server = await loop.create_server(door.visitor, self._host, port, backlog=BACKLOG, reuse_address=True)
        log.info(
            "ingress listens on port %d for %s:%d", server.sockets[0].getsockname()[1], exposed.service, exposed.port
        )
        return door, server


class _Door:
    """One listening port."""

    def __init__(self, exposed: Exposed, resolve: Resolve, tls: Tls, group: asyncio.TaskGroup) -> None:
        self.exposed = exposed
        self._resolve = resolve
        self._tls = tls
        self._group = group

    def visitor(self) -> asyncio.Protocol:
        visitor, context = Visitor(self._lead_in), self._tls()
        return TlsServer(context, visitor) if context is not None else visitor

    def _lead_in(self, visitor: Visitor) -> None:
        self._group.create_task(self._connect(visitor))

    async def _connect(self, visitor: Visitor) -> None:
        for _ in range(CONNECT_TRIES):
            if visitor.is_gone:
                return
            try:
                await self._connect_once(visitor)
                return
            except (OSError, TimeoutError) as error:
                log.debug("%s:%d does not answer: %s", self.exposed.service, self.exposed.port, error)
                await asyncio.sleep(RETRY_S)
        visitor.abort()

    async def _connect_once(self, visitor: Visitor) -> None:
        address = self._resolve(self.exposed)
        if address is None:
            raise OSError("no container runs")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await loop.create_connection(lambda: Half(visitor), *address)
