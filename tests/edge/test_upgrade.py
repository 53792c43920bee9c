"""WebSockets through the running edge, and everything that only looks like one."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.edge.conftest import Announce, ready_route
from tests.edge.wire import WAIT_S, Reader, Writer, ok, origin, read_head, read_message, visitor

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3.


def upgrade(label: str, changes: dict[str, str] | None = None) -> bytes:
    fields = {
        "Host": f"{label}.localhost",
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(changes or {}),
    }
    return ("GET /ws HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items() if v) + "\r\n").encode()


def switched(accept: str = ACCEPT) -> bytes:
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


async def echo_frames(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_websocket_messages_pass_both_ways(port: int, announce: Announce) -> None:
    async with serve(echo_frames, "127.0.0.1", 0, max_size=None) as server, asyncio.timeout(WAIT_S):
        label = await announce(ready_route(next(iter(server.sockets)).getsockname()[1]))

        async with connect(f"ws://{label}.localhost:{port}/x", host="127.0.0.1", port=port, max_size=None) as socket:
            await socket.send("hello")
            small = await socket.recv()
            await socket.send(b"x" * 5_000_000)
            big = await socket.recv()

    assert (small, big) == ("hello", b"x" * 5_000_000)


async def test_bytes_sent_ahead_of_the_upgrade_pass_after_it(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(switched() + b"down")
        writer.write(await reader.readexactly(2))
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(upgrade(await announce(ready_route(vm.port))) + b"up")
        head = await read_head(browser.reader)
        async with asyncio.timeout(WAIT_S):
            passed = await browser.reader.readexactly(6)

    assert (head.line, head["upgrade"], head["sec-websocket-accept"]) == (
        "HTTP/1.1 101 Switching Protocols", "websocket", ACCEPT
    )  # fmt: skip
    assert passed == b"downup"


async def test_one_side_of_a_tunnel_may_end_first(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(switched())
        writer.write(b"got " + await reader.read())

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(upgrade(await announce(ready_route(vm.port))))
        await read_head(browser.reader)
        await browser.send(b"all")
        browser.writer.write_eof()
        end = await browser.rest()

    assert end == b"got all"


async def test_vm_that_ends_a_tunnel_ends_it_for_the_visitor(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(switched() + b"bye")

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(upgrade(await announce(ready_route(vm.port))))
        await read_head(browser.reader)
        end = await browser.rest()

    assert end == b"bye"


@pytest.mark.parametrize(
    "answer",
    [
        switched("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        switched().replace(b"Sec-WebSocket-Accept", b"X"),
        switched().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        switched().replace(b"Connection: upgrade\r\n", b""),
        switched().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"),
    ],
)
async def test_101_without_proof_is_a_502(port: int, announce: Announce, answer: bytes) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer)
        await reader.read()

    async with origin(script) as vm, visitor(port) as browser:
        await browser.send(upgrade(await announce(ready_route(vm.port))))
        final = await browser.answer()

    assert final.status == 502


async def test_refused_upgrade_never_lets_what_was_sent_ahead_reach_the_origin(port: int, announce: Announce) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            lines.append((await read_message(reader)).line)
            writer.write(ok(b"no"))

    lines: list[str] = []
    async with origin(script) as vm, visitor(port) as attacker:
        label = await announce(ready_route(vm.port))
        await attacker.send(upgrade(label) + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await attacker.answer()
        end = await attacker.rest()

    assert (answer.body, answer["connection"], end) == (b"no", "close", b"")
    assert lines == ["GET /ws HTTP/1.1"]


@pytest.mark.parametrize(
    "changes",
    [{"Upgrade": "h2c"}, {"Upgrade": "websocket, h2c"}, {"Connection": "keep-alive"}, {"Content-Length": "1"}],
    ids=["h2c", "list", "not-nominated", "with-body"],
)
async def test_what_is_no_websocket_request_is_forwarded_without_upgrade(
    port: int, announce: Announce, changes: dict[str, str]
) -> None:
    async with origin() as vm, visitor(port) as browser:
        await browser.send(upgrade(await announce(ready_route(vm.port)), changes) + b"x")
        answer = await browser.answer()

    assert answer.status == 200
    assert (vm.requests[0]["upgrade"], vm.requests[0]["connection"]) == (None, None)
