"""What the worker issues, a real edge serves: verified by a visitor up to Pebble's root, and renewed under traffic."""

from __future__ import annotations

import asyncio
import ssl

from redis.asyncio import Redis

from edge.routes import encode, key_of
from tests.acme.conftest import Site
from tests.acme.pebble import DAY_S, Pebble
from tests.edge.certificates import serial_of
from tests.edge.conftest import EdgeProcess, edge_program, ready_route
from tests.edge.wire import Visitor, origin, until


async def visitor_of(port: int, host: str, root: str) -> Visitor:
    """A connection to the edge by a visitor who trusts the authority's root and nothing else."""
    context = ssl.create_default_context(cadata=root)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    return Visitor(reader, writer)


def serial(visitor: Visitor) -> int:
    return serial_of(visitor.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def test_edge_takes_a_renewed_certificate_and_open_connections_go_on(
    site: Site, pebble: Pebble, redis_url: str, redis: Redis
) -> None:
    host, root, file = f"a.{site.domain}", pebble.root(), site.folder.certificate
    get = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    await site.look()
    seen: list[str] = []
    with edge_program(
        redis_url,
        STAGELY_DOMAIN=site.domain,
        STAGELY_EDGE_LISTEN="",
        STAGELY_EDGE_TLS_LISTEN="127.0.0.1:0",
        STAGELY_TLS_CERT=str(file),
        STAGELY_TLS_KEY=str(file),
    ) as edge:
        async with origin() as vm:
            await redis.set(key_of("a"), encode(ready_route(vm.port)))
            early = await visitor_of(edge.port, host, root)
            first = await early.ask(get)
            site.ahead_s[0] = 60.0 * DAY_S
            await site.look()
            await until(lambda: "certificate loaded" in noted(edge, seen))
            late = await visitor_of(edge.port, host, root)
            answers = [first, await early.ask(get), await late.ask(get)]
            early.writer.transport.abort()
            late.writer.transport.abort()

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert serial(early) != serial(late)
    assert "certificate refused" not in seen


def noted(edge: EdgeProcess, seen: list[str]) -> list[str]:
    """All events of the edge's log so far."""
    seen += [event["event"] for event in edge.fresh_events()]
    return seen
