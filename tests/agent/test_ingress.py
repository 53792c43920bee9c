"""The front door, on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from agent.ingress import Address, Ingress
from agent.protocol import Exposed

LIMIT_S = 20.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WEB = Exposed("web", 80, "http://h.localhost")
API = Exposed("api", 81, "http://api-h.localhost")


@asynccontextmanager
async def service(serve: Serve) -> AsyncIterator[Address]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "127.0.0.1", server.sockets[0].getsockname()[1]


@asynccontextmanager
async def open_door(leads_to: dict[str, Address], *exposed: Exposed) -> AsyncIterator[Ingress]:
    ingress = Ingress(lambda one: leads_to.get(one.service), "127.0.0.1", first_port=0)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(ingress.run())
        ingress.expose(exposed)
        await until_ports(ingress, len(exposed))
        yield ingress
        task.cancel()


async def until_ports(ingress: Ingress, count: int) -> None:
    while len(ingress.ports) != count:  # noqa: ASYNC110  # The listener tells nobody when it is there.
        await asyncio.sleep(0.01)


async def said_by(port: int, request: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def always(text: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text + await reader.read())
        writer.close()

    return serve


async def test_bytes_go_both_ways_and_one_side_may_end_first() -> None:
    async with service(always(b"web:")) as web, open_door({"web": web}, WEB) as ingress:
        assert await said_by(ingress.ports[0], b"hello") == b"web:hello"


async def test_every_exposed_service_has_its_own_port() -> None:
    async with (
        service(always(b"web")) as web,
        service(always(b"api")) as api,
        open_door({"web": web, "api": api}, WEB, API) as ingress,
    ):
        assert [await said_by(port) for port in ingress.ports] == [b"web", b"api"]


async def test_a_replaced_container_is_found_at_the_next_connection() -> None:
    leads_to: dict[str, Address] = {}
    async with service(always(b"old")) as old, service(always(b"new")) as new, open_door(leads_to, WEB) as ingress:
        leads_to["web"] = old
        first = await said_by(ingress.ports[0])
        leads_to["web"] = new
        second = await said_by(ingress.ports[0])

    assert (first, second) == (b"old", b"new")


async def test_who_comes_while_the_service_is_replaced_waits_for_it() -> None:
    leads_to: dict[str, Address] = {}
    async with service(always(b"here")) as web, open_door(leads_to, WEB) as ingress, asyncio.TaskGroup() as group:
        visit = group.create_task(said_by(ingress.ports[0]))
        await asyncio.sleep(0)
        leads_to["web"] = web

        assert await visit == b"here"


async def test_a_service_that_does_not_come_back_ends_the_connection() -> None:
    async with open_door({}, WEB) as ingress:
        reader, writer = await asyncio.open_connection("127.0.0.1", ingress.ports[0])

        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_reader_that_does_not_read_holds_the_sender_back() -> None:
    sent = 0
    stopped = asyncio.Event()

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while sent < 1 << 30:
                writer.write(b"x" * 65536)
                async with asyncio.timeout(1.0):
                    await writer.drain()
                sent += 65536
        except TimeoutError:
            stopped.set()
        writer.transport.abort()

    async with service(pour) as web, open_door({"web": web}, WEB) as ingress:
        _, writer = await asyncio.open_connection("127.0.0.1", ingress.ports[0])
        await stopped.wait()
        writer.close()

    assert sent < 64 * 1024 * 1024


async def test_a_redeploy_keeps_the_ports_that_are_open() -> None:
    async with (
        service(always(b"web")) as web,
        service(always(b"api")) as api,
        open_door({"web": web, "api": api}, WEB) as ingress,
    ):
        before = ingress.ports

        ingress.expose((API, WEB))
        await until_ports(ingress, 2)

        assert ingress.ports[0] == before[0]
        assert [await said_by(port) for port in ingress.ports] == [b"api", b"web"]


async def test_a_service_that_is_no_longer_exposed_has_no_port() -> None:
    async with service(always(b"web")) as web, open_door({"web": web, "api": web}, WEB, API) as ingress:
        ingress.expose((WEB,))
        await until_ports(ingress, 1)

        assert await said_by(ingress.ports[0]) == b"web"


async def test_a_lost_visitor_ends_the_connection_to_the_service() -> None:
    gone = asyncio.Event()

    async def wait_for_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    async with service(wait_for_end) as web, open_door({"web": web}, WEB) as ingress:
        _, writer = await asyncio.open_connection("127.0.0.1", ingress.ports[0])
        writer.write(b"x")
        await writer.drain()
        writer.transport.abort()

        await gone.wait()


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        linger = (1).to_bytes(4, "little") + bytes(4)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with service(break_off) as web, open_door({"web": web}, WEB) as ingress:
        reader, writer = await asyncio.open_connection("127.0.0.1", ingress.ports[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
