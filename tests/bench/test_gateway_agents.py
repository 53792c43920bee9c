"""Simulated agents on real sockets, against the bare server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import serve

from agent.protocol import Hello, Welcome, decode_to_core, encode, signed_bytes
from bench.gateway import frames, loglines
from bench.gateway.agents import Crowd, ack_of
from bench.gateway.bare import Duty, Orders, Server, give_nonce
from bench.gateway.beats import beat_evenly
from bench.gateway.residents import Resident, heartbeat

RESIDENTS = [Resident(f"vm-{n}", f"env-{n}", f"run-{n}", "boot", "token", f"{n:064x}") for n in range(3)]


@asynccontextmanager
async def bare_server() -> AsyncIterator[tuple[Server, int]]:
    """The server and its port."""
    bare = Server(encode(Welcome(30, 0)), None, None)
    async with (
        asyncio.timeout(20),
        serve(bare.talk, "127.0.0.1", 0, compression=None, process_response=give_nonce) as listening,
    ):
        (listener,) = listening.sockets
        yield bare, listener.getsockname()[1]


async def test_all_come_and_all_leave() -> None:
    async with bare_server() as (_, port):
        crowd = Crowd(port, RESIDENTS)

        assert await crowd.come(range(3)) == 3
        assert crowd.open_count == 3
        await crowd.leave()

    assert (crowd.open_count, crowd.lost, crowd.complaints) == (0, 0, [])


def test_a_resident_signs_like_an_agent_and_shows_its_token_until_it_is_welcomed() -> None:
    resident = Resident("vm-1", "env-1", "run-1", "boot", "token", "5a" * 32)

    first = hello_of(resident, "n1")
    again = hello_of(resident, "n1")
    resident.welcomed()
    second = hello_of(resident, "n2")

    assert again == first
    assert (first.session, first.token) == ("", "token")
    assert (second.session, second.token) == (first.next_session, "")
    assert second.next_session not in ("", first.next_session)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(second.public_key))
    key.verify(bytes.fromhex(second.signature), signed_bytes(second, "n2"))


def hello_of(resident: Resident, nonce: str) -> Hello:
    message = decode_to_core(resident.hello(nonce).decode())
    assert isinstance(message, Hello)
    return message


async def test_agents_without_a_hello_are_only_upgraded() -> None:
    async with bare_server() as (bare, port):
        crowd = Crowd(port, RESIDENTS, says_hello=False)

        assert await crowd.come(range(3)) == 3
        await crowd.leave()

    assert (crowd.open_count, bare.heard_at) == (0, {})


async def test_a_probe_is_answered_and_timed() -> None:
    async with bare_server() as (bare, port):
        crowd = Crowd(port, RESIDENTS)
        await crowd.come(range(1))

        sent = await beat_evenly(crowd, frames.masked(frames.TEXT, heartbeat()), 0.1, 0.01, 1)

        assert await crowd.all_answered(10)
        await crowd.leave()

    assert len(crowd.answers_s) == sent > 0
    assert list(bare.heard_at) == ["vm-0"]


async def test_acknowledged_lines_are_told_by_agent_and_number() -> None:
    heard: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    async with bare_server() as (_, port):
        crowd = Crowd(port, RESIDENTS, heard_ack=lambda number, seq: heard.put_nowait((number, seq)))
        await crowd.come(range(2, 3))

        crowd.lines[2].send(frames.masked(frames.TEXT, loglines.frame_text(2, 1, 0, 100)))

        assert [await heard.get(), await heard.get()] == [(2, 0), (2, 1)]
        await crowd.leave()


async def test_a_server_that_goes_away_is_noticed() -> None:
    gone = asyncio.Event()
    async with bare_server() as (_, port):
        crowd = Crowd(port, RESIDENTS, on_lost=lambda line: gone.set())
        await crowd.come(range(1))

    await gone.wait()

    assert crowd.lost == 1
    assert crowd.complaints == ["closed with 1001 ''"]


async def test_nobody_gets_in_where_nobody_listens() -> None:
    async with bare_server() as (_, port):
        pass
    crowd = Crowd(port, RESIDENTS)

    assert await crowd.come(range(2)) == 0
    assert len(crowd.complaints) == 2


def test_the_seq_of_an_ack_is_its_number() -> None:
    assert ack_of(b'{"type":"ACK","seq":4711}') == 4711


def test_orders_travel_as_text() -> None:
    orders = Orders(1, 30.0, "postgresql://x", "redis://x", "/key", Duty(True, "rows"))

    assert Orders.from_text(orders.to_text()) == orders
