"""The wire itself: what is no strict WebSocket, or too much, ends the connection and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from agent.protocol import MAX_FRAME_BYTES, Heartbeat, Refused, Welcome, encode
from api.gateway.frames import STRANGER_BYTES
from api.gateway.turns import Turns
from api.gateway.websocket import AgentSocket
from tests.api.ledger import IDLE, Ledger
from tests.api.rfc6455.stand_in import Echo
from tests.api.wire import DEADLINE_S, connected, dial
from tests.api.world import Clock, ClockBroken, OpenGateway, Running, eventually, identity

HUGE_NUMBER = '{"type":"RESULT","seq":1,"command_id":"c","outcome":"failed","phases":{"build":1' + "0" * 400 + "}}"


async def raw(address: tuple[str, int], request: bytes) -> bytes:
    """Everything that is answered to these bytes."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


def handshake(*more: str, path: str = "/v1/agent/connect") -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_message_in_fragments_is_one_message(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        text = encode(identity("vm-1").hello(agent.nonce))
        await agent.socket.send([text[:5], text[5:9], text[9:]])

        assert await agent.hear(Welcome)


async def test_two_messages_in_one_segment_are_two_messages(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        await agent.say(identity("vm-1").hello(agent.nonce), Heartbeat(IDLE))
        refused = await agent.hear_until(Refused)

    assert refused.code == "unexpected_message"


@pytest.mark.parametrize(
    ("frame", "close_code"),
    [
        (HUGE_NUMBER, 1008),
        (b"binary", 1003),
        ("x" * (MAX_FRAME_BYTES + 1), 1009),
        ("[" * 100_000, 1008),
        ("nonsense", 1008),
    ],
    ids=["number", "binary", "too-large", "deep", "no-json"],
)
async def test_frame_that_is_no_message_ends_the_connection(
    gateway: Running, ledger: Ledger, frame: str | bytes, close_code: int
) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_vm("vm-2")

    async with (
        connected(gateway.address, identity("vm-2")) as (other, _),
        connected(gateway.address, identity("vm-1")) as (agent, _),
    ):
        await agent.socket.send(frame)
        code = await agent.close_code()
        await other.say(Heartbeat(IDLE))
        await (await other.socket.ping())

    assert code == close_code


async def test_stranger_is_refused_by_the_head_of_a_large_frame(gateway: Running) -> None:
    async with dial(gateway.address) as agent:
        await agent.socket.send("x" * (STRANGER_BYTES + 1))

        assert await agent.close_code() == 1009


async def test_text_that_is_not_utf8_ends_the_connection(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.socket.send(b'{"type":"HEARTBEAT","state":"\xff"}', text=True)
        code = await agent.close_code()

    assert code == 1007


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake(), b"400"),
        (handshake("Host: a", "Host: b"), b"400"),
        (handshake("Host: a", "Origin: http://evil.example"), b"403"),
        (handshake("Host: a", path="/"), b"404"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"POST /v1/agent/connect HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
    ],
    ids=["no-host", "two-hosts", "origin", "path", "health", "method"],
)
async def test_handshake_is_strict(gateway: Running, request_bytes: bytes, status: bytes) -> None:
    answer = await raw(gateway.address, request_bytes)

    assert answer.split(b" ")[1] == status


async def test_handshake_with_a_body_is_a_bad_request(gateway: Running) -> None:
    answer = await raw(gateway.address, handshake("Host: a", "Content-Length: 5"))

    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_socket_without_hello_is_closed(open_gateway: OpenGateway, ledger: Ledger) -> None:
    clock = Clock()

    async with open_gateway(clock=clock) as running, dial(running.address) as agent:
        await (await agent.socket.ping())
        clock.advance(6)
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("hello_timeout", False)


async def test_socket_that_missed_three_heartbeats_is_cut(open_gateway: OpenGateway, ledger: Ledger) -> None:
    clock = Clock()
    await ledger.add_vm("vm-1")

    async with open_gateway(clock=clock) as running, connected(running.address, identity("vm-1")) as (agent, _):
        clock.advance(16)
        code = await agent.close_code()

    assert code == 1006


async def test_loop_that_fails_ends_the_gateway_as_a_stop_does(open_gateway: OpenGateway, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    clock = Clock()
    codes: list[int] = []

    async def serve_until_it_fails() -> None:
        async with open_gateway(clock) as running, connected(running.address, identity("vm-1")) as (agent, _):
            clock.break_once()
            codes.append(await agent.close_code())
            await asyncio.wait_for(asyncio.Event().wait(), DEADLINE_S)  # The gateway's error ends this wait.

    with pytest.raises(ExceptionGroup) as caught:
        await serve_until_it_fails()

    assert caught.value.subgroup(ClockBroken) is not None
    assert codes == [1012]


async def test_health_is_bad_while_no_loop_runs() -> None:
    class Failed(Echo):
        def is_healthy(self) -> bool:
            return False

    server = await asyncio.get_running_loop().create_server(lambda: AgentSocket(Failed(), Turns()), "127.0.0.1", 0)
    async with server:
        answer = await raw(server.sockets[0].getsockname(), b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 503")


async def test_who_comes_behind_a_crowd_is_told_to_wait(
    gateway: Running, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gateway.server.CROWD", 1)
    await ledger.add_vm("vm-1")
    await ledger.add_vm("vm-2")

    async with dial(gateway.address) as first, dial(gateway.address) as second:
        async with ledger.vms_held():
            await first.greet(identity("vm-1"))
            await eventually(ledger.are_vms_waited_for)
            await second.greet(identity("vm-2"))
            await (await second.socket.ping())
            answer = await raw(gateway.address, handshake("Host: a"))
        assert await first.hear(Welcome)
        assert await second.hear(Welcome)

    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in head
    assert b"Try again in a moment" in text


async def test_one_machine_that_says_hello_again_and_again_makes_no_crowd(
    gateway: Running, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gateway.server.CROWD", 2)
    monkeypatch.setattr("api.gateway.hellos.WAITING_OF_ONE", 3)
    await ledger.add_vm("vm-1")

    async with AsyncExitStack() as lines:
        dialled = [await lines.enter_async_context(dial(gateway.address)) for _ in range(5)]
        async with ledger.vms_held():
            await dialled[0].greet(identity("vm-1"))
            await eventually(ledger.are_vms_waited_for)
            for one in dialled[1:4]:
                await one.greet(identity("vm-1"))
                await (await one.socket.ping())
            await dialled[4].greet(identity("vm-1"))
            turned_back = await dialled[4].hear(Refused)
            async with dial(gateway.address):  # A crowd would be answered with 503.
                pass

    assert (turned_back.code, turned_back.final) == ("unavailable", False)
