"""The edge as a whole: listens, owns route table and clients, dials VMs, watches deadlines, and drains."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import Counter

from edge.client import Client
from edge.config import Settings
from edge.feed import Feed
from edge.head import HeadRefused, Request
from edge.log import Log
from edge.memo import Memo
from edge.metrics import Metrics, Scrape
from edge.pool import Pool
from edge.routes import Route
from edge.table import Entry, RouteTable
from edge.tls import Certificate
from edge.trust import Unproven, VmTrust
from edge.upstream import Upstream

FIRST_CONTACT_S = 5.0  # Wait this long for Redis before listening: the first visitors should not meet a 503.
_TABLE_SWEEP_S = 1.0
_BACKLOG = 1024


class Edge:
    """One process of the edge. `run` serves until `stop` is called."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.limits = settings.limits
        self.access_log = settings.access_log
        self.clock = time.monotonic
        self.clients: set[Client] = set()
        self.is_draining = False
        self.listening: list[tuple[str, int]] = []  # Real addresses, also where port 0 was asked for.
        self.ready = asyncio.Event()
        self.metrics = Metrics()
        self.metrics_at: list[tuple[str, int]] = []
        self.redirects = settings.redirects
        self._settings = settings
        self._shares_address = settings.shares_address or None  # None: the platform may not know of it.
        self._log = log
        self._certificate = Certificate(settings.certificate, settings.key, log) if settings.tls_listen else None
        self._vms = VmTrust(settings.vm_ca, log) if settings.vm_ca is not None else None
        self._per_client: Counter[str] = Counter()
        self._feed = Feed(settings.redis_url, log)
        self.table = RouteTable(self._feed.ask, settings.limits, settings.rate_limit, log, self.clock)
        self._host = re.compile(rb"([a-z0-9\-]{1,63})\.%b(?::[0-9]+)?" % re.escape(settings.domain.encode()))
        # The label of a preview's host name; None when the host is not one label before the domain.
        self.labels = Memo(self._label_of)
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Serve. Ends after `stop`, when every client is done or the drain limit has passed."""
        async with asyncio.TaskGroup() as self._tasks:
            endless = [self._tasks.create_task(self._feed.run(self.table)), self._tasks.create_task(self._sweep())]
            try:
                await self._first_contact()
                await self._serve()
            finally:
                self.table.close()
                for task in endless:
                    task.cancel()

    def stop(self) -> None:
        """Take no new connection or request, let the running ones end."""
        self._stop.set()

    async def _first_contact(self) -> None:
        deadline = self.clock() + FIRST_CONTACT_S
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + FIRST_CONTACT_S):
                await self.table.contacted.wait()
        except TimeoutError:
            self._log.warning("listening without redis", waited_s=round(FIRST_CONTACT_S + self.clock() - deadline, 1))

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        servers = []
        try:
            for host, port in self._settings.listen:
                servers.append(await self._listen(host, port))
            for host, port in self._settings.tls_listen:
                servers.append(await self._listen_tls(host, port))
            for server in servers:
                self.listening += [sock.getsockname()[:2] for sock in server.sockets]
            for host, port in self.listening:
                self._log.info("edge listening", host=host, port=port, domain=self._settings.domain)
            for host, port in self._settings.metrics_listen:
                servers.append(await loop.create_server(self._scrape, host, port, reuse_port=self._shares_address))
                self.metrics_at += [sock.getsockname()[:2] for sock in servers[-1].sockets]
                self._log.info("metrics listening", host=host, port=self.metrics_at[-1][1])
            self.ready.set()
            await self._stop.wait()
        finally:
            for server in servers:
                server.close()
        await self._drain()

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: Client(self), host, port, backlog=_BACKLOG, reuse_port=self._shares_address
        )

    async def _listen_tls(self, host: str, port: int) -> asyncio.Server:
        assert self._certificate is not None
        return await asyncio.get_running_loop().create_server(
            lambda: Client(self),
            host,
            port,
            backlog=_BACKLOG,
            reuse_port=self._shares_address,
            ssl=self._certificate.context,
            ssl_handshake_timeout=self.limits.head_s,
            ssl_shutdown_timeout=self.limits.linger_s,
        )

    async def _drain(self) -> None:
        self.is_draining = True
        self._empty.clear()
        self._log.info("edge draining", clients=len(self.clients), limit_s=self.limits.drain_s)
        for client in list(self.clients):
            client.drain()
        try:
            async with asyncio.timeout(self.limits.drain_s):
                if self.clients:
                    await self._empty.wait()
        except TimeoutError:
            self._log.warning("drain cut short", clients=len(self.clients), limit_s=self.limits.drain_s)
            for client in list(self.clients):
                client.abort()

    async def _sweep(self) -> None:
        """Enforce deadlines in one pass over all clients: no timer per request."""
        table_at = 0.0
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            now = self.clock()
            for client in [client for client in self.clients if now > client.deadline]:
                client.expired()
            if now >= table_at:
                self.table.sweep()
                if self._certificate is not None:
                    self._certificate.refresh()
                if self._vms is not None and self._vms.refresh():
                    self.table.renew_tls()
                table_at = now + _TABLE_SWEEP_S

    # What clients ask of it.

    def _label_of(self, host: bytes) -> str | None:
        found = self._host.fullmatch(host)
        return found[1].decode() if found else None

    def https_url(self, host: bytes, target: bytes) -> str:
        """Where the same request is served by TLS."""
        port = self._settings.https_port
        return f"https://{host.partition(b':')[0].decode()}{'' if port == 443 else f':{port}'}{target.decode()}"

    def admit(self, client: Client, address: str) -> bool:
        """Take in a connection from this address, unless it has too many. What was admitted must be forgotten once."""
        group = _group_of(address)
        limit = self._settings.connections_per_client
        if limit and self._per_client[group] >= limit:
            self.metrics.turned_away += 1
            return False
        self._per_client[group] += 1
        self.metrics.connections += 1
        self.clients.add(client)
        return True

    def forget(self, client: Client, address: str) -> None:
        if client not in self.clients:
            return
        self.clients.discard(client)
        group = _group_of(address)
        self._per_client[group] -= 1
        if not self._per_client[group]:
            del self._per_client[group]
        if not self.clients:
            self._empty.set()

    def dial(self, pool: Pool, client: Client) -> None:
        """Open a connection for this client, which hears of it by `connected` or `unreachable`."""
        pool.open_count += 1
        self.metrics.dials += 1
        self._tasks.create_task(self._dial(pool, client))

    async def _dial(self, pool: Pool, client: Client) -> None:
        try:
            async with asyncio.timeout(self.limits.connect_s):
                upstream = await (self._connect_by_tls(pool) if pool.route.tls else self._connect(pool))
        except Unproven as unproven:
            pool.open_count -= 1
            client.unreachable(str(unproven))
        except (OSError, TimeoutError) as error:
            pool.open_count -= 1
            client.unreachable(f"the preview's machine did not accept a connection ({type(error).__name__})")
        else:
            client.connected(upstream)

    async def _connect(self, pool: Pool) -> Upstream:
        route = pool.route
        _, upstream = await asyncio.get_running_loop().create_connection(lambda: Upstream(pool), route.ip, route.port)
        return upstream

    async def _connect_by_tls(self, pool: Pool) -> Upstream:
        """Connect to the one machine that has the environment's certificate. Raises Unproven, also without any CA."""
        if self._vms is None:
            # Plain bytes must never stand in for the verified connection that the record asks for.
            raise Unproven("this edge knows no certificate authority of preview machines (STAGELY_EDGE_VM_CA)")
        return await self._vms.connect(pool, lambda: Upstream(pool), self.limits)

    # What is counted and logged.

    def _scrape(self) -> Scrape:
        return Scrape(self._metrics_text, self.limits.head_s)

    def _metrics_text(self) -> str:
        return self.metrics.text(
            {
                "stagely_edge_connections": len(self.clients),
                "stagely_edge_routes": self.table.size(),
                "stagely_edge_redis_connected": int(self._feed.is_connected),
                "stagely_edge_draining": int(self.is_draining),
            }
        )

    def failed(self, route: Route | None, status: int, reason: str) -> None:
        self._log.warning(
            "exchange failed",
            environment_id=route.environment if route else None,
            pr=route.pr if route else None,
            address=f"{route.ip}:{route.port}" if route else None,
            status=status,
            reason=reason,
        )

    def refused(self, address: str, refused: HeadRefused) -> None:
        self.metrics.refused[refused.status] += 1
        self._log.info("request refused", client=address, status=refused.status, reason=refused.reason)

    def served(self, request: Request, entry: Entry | None, status: int, took_s: float, body_bytes: int) -> None:
        """One request and its answer. The query is left out: it may hold what only the application should know."""
        route = entry.route if entry else None
        self._log.info(
            "request served",
            method=request.method.decode(),
            host=request.host.decode(),
            path=request.target.partition(b"?")[0].decode(),
            body_bytes=body_bytes,
            status=status,
            took_s=round(took_s, 4),
            environment_id=route.environment if route else None,
        )


def _group_of(address: str) -> str:
    """Whose connections are counted together: one IPv4 address, or the /64 that one subscriber of IPv6 has."""
    return str(ipaddress.IPv6Network((address, 64), strict=False)) if ":" in address else address
