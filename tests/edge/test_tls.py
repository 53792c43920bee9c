"""The TLS listener: the certificate and its renewal, names that must agree, and what plain HTTP says meanwhile."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from edge.config import Limits
from edge.routes import encode, key_of
from tests.edge.certificates import Pair, serial_of, trusting, write_pair
from tests.edge.conftest import RunningEdge, edge_program, ready_route, running_edge, start_edge
from tests.edge.wire import WAIT_S, Reader, Visitor, Writer, ok, origin, read_head, until, visitor

GET = b"GET /a?b HTTP/1.1\r\nHost: a.localhost\r\n\r\n"
ANY = "127.0.0.1:0"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path / "tls")


@asynccontextmanager
async def tls_edge(redis_url: str, pair: Pair, **limits: float) -> AsyncIterator[RunningEdge]:
    short = Limits(sweep_s=0.02, **{"drain_s": 0.2, **limits})  # type: ignore[arg-type]  # The caller's names.
    async with running_edge(
        redis_url, short, tls_listen=(("127.0.0.1", 0),), certificate=pair.certificate, key=pair.key, redirects=True
    ) as edge:
        yield edge


@asynccontextmanager
async def tls_visitor(port: int, pair: Pair, host: str = "a.localhost") -> AsyncIterator[Visitor]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusting(pair), server_hostname=host, limit=1 << 20
    )
    try:
        yield Visitor(reader, writer)
    finally:
        writer.transport.abort()


async def serial_seen(port: int, pair: Pair) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.localhost")
    try:
        return serial_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    finally:
        writer.transport.abort()


async def test_preview_is_served_by_tls_and_told_so(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge, tls_visitor(edge.tls_port, pair) as browser:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        answers = [await browser.ask(GET), await browser.ask(GET)]
        version = browser.writer.get_extra_info("ssl_object").version()

    assert [answer.status for answer in answers] == [200, 200]
    assert version == "TLSv1.3"
    assert (vm.requests[0]["x-forwarded-proto"], vm.requests[0]["forwarded"]) == (
        "https", 'for=127.0.0.1;proto=https;host="a.localhost"'
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_2_is_the_oldest_version(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with tls_edge(redis_url, pair) as edge:
        old = trusting(pair)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=old, server_hostname="a.localhost")
        version = writer.get_extra_info("ssl_object").version()
        writer.transport.abort()
        older = trusting(pair)
        older.set_ciphers("ALL:@SECLEVEL=0")
        older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=older, server_hostname="a.localhost")

    assert version == "TLSv1.2"


@pytest.mark.parametrize("sni", ["b.localhost", "A.b.localhost"])
async def test_host_that_is_not_the_name_of_the_handshake_gets_421(
    redis_url: str, redis: Redis, pair: Pair, sni: str
) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=context, server_hostname=sni)
        answer = await Visitor(reader, writer).ask(GET)
        writer.transport.abort()

    assert (answer.status, vm.connections) == (421, 0)


async def test_handshake_without_a_name_gets_421(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with tls_edge(redis_url, pair) as edge:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=context, server_hostname="")
        answer = await Visitor(reader, writer).ask(GET)
        writer.transport.abort()

    assert answer.status == 421


async def test_name_and_host_may_differ_in_case_and_port(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with tls_visitor(edge.tls_port, pair, "A.LocalHost") as browser:
            answer = await browser.ask(b"GET / HTTP/1.1\r\nHost: a.LOCALHOST:8443\r\n\r\n")

    assert answer.status == 200


async def test_plain_http_is_sent_to_https(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge, visitor(edge.port) as browser:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        moved = await browser.ask(GET.replace(b"localhost", b"LOCALHOST:80"))
        stranger = await browser.ask(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert (moved.status, moved["location"]) == (308, "https://a.localhost/a?b")
    assert (stranger.status, stranger["location"]) == (404, None)
    assert vm.connections == 0


async def test_plain_http_serves_where_it_is_told_to(redis_url: str, redis: Redis, pair: Pair) -> None:
    with edge_program(
        redis_url,
        STAGELY_EDGE_TLS_LISTEN=ANY,
        STAGELY_TLS_CERT=str(pair.certificate),
        STAGELY_TLS_KEY=str(pair.key),
        STAGELY_EDGE_REDIRECT="0",
    ) as edge:
        async with origin() as vm, visitor(edge.ports[0]) as browser:
            await redis.set(key_of("a"), encode(ready_route(vm.port)))
            answer = await browser.ask(GET)

    assert (answer.status, vm.requests[0]["x-forwarded-proto"]) == (200, "http")


async def test_tls_may_be_the_only_listener(redis_url: str, redis: Redis, pair: Pair) -> None:
    with edge_program(
        redis_url,
        STAGELY_EDGE_LISTEN="",
        STAGELY_EDGE_TLS_LISTEN=ANY,
        STAGELY_TLS_CERT=str(pair.certificate),
        STAGELY_TLS_KEY=str(pair.key),
    ) as edge:
        async with tls_visitor(edge.port, pair) as browser:
            answer = await browser.ask(GET)

    assert (answer.status, len(edge.ports)) == (404, 1)


async def test_renewed_certificate_is_used_and_old_connections_go_on(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge, tls_visitor(edge.tls_port, pair) as browser:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        await browser.ask(GET)
        before = await serial_seen(edge.tls_port, pair)
        renewed = write_pair(pair.folder)
        await until(lambda: edge.events("certificate loaded"))
        after = await serial_seen(edge.tls_port, pair)
        answer = await browser.ask(GET)

    assert (before, after) == (pair.serial, renewed.serial)
    assert answer.status == 200


@pytest.mark.parametrize("broken", ["nonsense", "other-key", "gone"])
async def test_bad_new_files_keep_the_old_certificate_until_good_ones_come(
    redis_url: str, redis: Redis, pair: Pair, tmp_path: Path, broken: str
) -> None:
    async with tls_edge(redis_url, pair) as edge:
        if broken == "nonsense":
            pair.certificate.write_text("nonsense", "ascii")
        elif broken == "other-key":
            pair.key.write_bytes(write_pair(tmp_path / "other").key.read_bytes())
        else:
            pair.certificate.unlink()
        await until(lambda: edge.events("certificate refused"))
        still = await serial_seen(edge.tls_port, pair)
        renewed = write_pair(pair.folder)
        await until(lambda: edge.events("certificate loaded"))
        after = await serial_seen(edge.tls_port, pair)

    assert (still, after) == (pair.serial, renewed.serial)
    assert len(edge.events("certificate refused")) <= 2  # Once, or once more between the two new files.


def test_edge_without_a_usable_certificate_does_not_start(redis_url: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")

    with pytest.raises(AssertionError, match="ended with 2"):
        start_edge(redis_url, STAGELY_EDGE_TLS_LISTEN=ANY, STAGELY_TLS_CERT=missing, STAGELY_TLS_KEY=missing)


async def test_handshake_that_never_ends_is_cut(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with tls_edge(redis_url, pair, head_s=0.2) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(WAIT_S):
            end = await reader.read()
        writer.close()

    assert end == b""


async def test_plain_bytes_on_the_tls_port_harm_nobody(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with origin() as vm, tls_edge(redis_url, pair) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with visitor(edge.tls_port) as lost:
            await lost.send(GET)
            await lost.rest()
        async with tls_visitor(edge.tls_port, pair) as browser:
            answer = await browser.ask(GET)

    assert answer.status == 200


async def test_websocket_passes_by_tls_and_ends_for_both_when_the_vm_ends_it(
    redis_url: str, redis: Redis, pair: Pair
) -> None:
    async def echo_three(connection: ServerConnection) -> None:
        for _ in range(3):
            await connection.send(await connection.recv())

    async with (
        tls_edge(redis_url, pair) as edge,
        serve(echo_three, "127.0.0.1", 0, max_size=None) as server,
        asyncio.timeout(WAIT_S),
    ):
        await redis.set(key_of("a"), encode(ready_route(next(iter(server.sockets)).getsockname()[1])))
        url = f"wss://a.localhost:{edge.tls_port}/x"
        async with connect(url, host="127.0.0.1", ssl=trusting(pair), max_size=None) as wire:
            echoes = []
            for message in ("hello", b"x" * 3_000_000, "bye"):
                await wire.send(message)
                echoes.append(await wire.recv())
            await wire.wait_closed()

    assert echoes == ["hello", b"x" * 3_000_000, "bye"]
    assert wire.close_code == 1000


async def test_twenty_megabytes_pass_both_ways_by_tls(redis_url: str, redis: Redis, pair: Pair) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\nConnection: close\r\n\r\n")
        left = 20_000_000
        while left:
            piece = await reader.read(65536)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    pattern = bytes(range(256)) * 78125
    async with origin(script) as vm, tls_edge(redis_url, pair) as edge, tls_visitor(edge.tls_port, pair) as browser:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with asyncio.TaskGroup() as tasks:
            head = b"POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 20000000\r\n\r\n"
            tasks.create_task(browser.send(head + pattern))
            answer = await browser.answer()

    assert answer.body == pattern


async def test_refused_upload_is_answered_before_the_connection_ends(redis_url: str, redis: Redis, pair: Pair) -> None:
    async with tls_edge(redis_url, pair) as edge, tls_visitor(edge.tls_port, pair) as uploader:
        await uploader.send(b"POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 300_000)
        answer = await uploader.answer()
        end = await uploader.rest()

    assert (answer.status, answer["connection"], end) == (404, "close", b"")


async def test_drain_ends_idle_tls_connections_and_finishes_running_answers(
    redis_url: str, redis: Redis, pair: Pair
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        begun.set()
        await go_on.wait()
        writer.write(ok(b"finished"))
        await reader.read()

    async with origin(script) as vm, tls_edge(redis_url, pair, drain_s=20) as edge:
        await redis.set(key_of("a"), encode(ready_route(vm.port)))
        async with tls_visitor(edge.tls_port, pair) as browser, tls_visitor(edge.tls_port, pair) as idle:
            await browser.send(GET)
            await asyncio.wait_for(begun.wait(), WAIT_S)
            edge.edge.stop()
            idle_end = await idle.rest()
            go_on.set()
            answer = await browser.answer()
            end = await browser.rest()

    assert (idle_end, answer.body, answer["connection"], end) == (b"", b"finished", "close", b"")


async def test_websocket_lives_through_a_drain_until_its_limit(redis_url: str, redis: Redis, pair: Pair) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server, asyncio.timeout(WAIT_S):
        await redis.set(key_of("a"), encode(ready_route(next(iter(server.sockets)).getsockname()[1])))
        async with tls_edge(redis_url, pair, drain_s=0.5) as edge:
            url = f"wss://a.localhost:{edge.tls_port}/x"
            async with connect(url, host="127.0.0.1", ssl=trusting(pair)) as wire:
                edge.edge.stop()
                await until(lambda: edge.events("edge draining"))
                await wire.send("still there")
                echoed = await wire.recv()
                await wire.wait_closed()

    assert echoed == "still there"
    assert [event["clients"] for event in edge.events("drain cut short")] == [1]


def test_listener_takes_a_crowd_at_once(redis_url: str, pair: Pair) -> None:
    with edge_program(
        redis_url, STAGELY_EDGE_TLS_LISTEN=ANY, STAGELY_TLS_CERT=str(pair.certificate), STAGELY_TLS_KEY=str(pair.key)
    ) as edge:
        crowd = [socket.create_connection(("127.0.0.1", edge.ports[1]), timeout=WAIT_S) for _ in range(500)]
        with trusting(pair).wrap_socket(crowd[-1], server_hostname="a.localhost") as last:
            last.sendall(b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
            answer = last.recv(12)
        for each in crowd:
            each.close()

    assert answer.startswith(b"HTTP/1.1 ")
