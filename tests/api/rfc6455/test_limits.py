"""256 KiB per message, however many frames it has; and nobody keeps a connection that was refused."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

import pytest

from api.gateway.frames import MAX_REQUEST_BYTES
from api.gateway.meter import BURST_S, MESSAGES_PER_S
from api.gateway.turns import Turns
from api.gateway.websocket import LINGER_S, AgentSocket
from tests.api.rfc6455.peer import (
    CONT,
    PONG,
    TEXT,
    close,
    connected,
    dialled,
    fragments,
    frame,
    head,
    parse,
    parse_head,
    ping,
    request,
    talk,
    text,
)
from tests.api.rfc6455.stand_in import Echo
from tests.api.rfc6455.transport import KeptTransport

LIMIT = 256 * 1024
LONGEST = 8 * 1024


@pytest.mark.parametrize(
    "sizes",
    [(LIMIT, 0), (0, LIMIT), (1, LIMIT - 1), (LIMIT - 1, 1), (65_536,) * 4, (1024,) * 256],
    ids=["empty-last", "empty-first", "long-last", "long-first", "four", "many"],
)
def test_message_of_the_limit_is_taken_in_fragments(port: int, sizes: tuple[int, ...]) -> None:
    answer = talk(port, [fragments(*["x" * size for size in sizes]), close()])

    assert answer.said == [("text", b"x" * LIMIT), ("close", 1000)]


@pytest.mark.parametrize("first", [1, 100, 65_536, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("is_last", [True, False], ids=["last", "not-last"])
def test_fragment_that_passes_the_limit_is_refused_by_its_head(port: int, first: int, is_last: bool) -> None:
    passing = head(CONT, LIMIT - first + 1, fin=is_last)

    answer = talk(port, [frame(TEXT, "x" * first, fin=False), passing])

    assert answer.said == [("close", 1009)]


@pytest.mark.parametrize(
    "between",
    [ping(), ping("x"), ping("x" * 2), ping("x" * 125), frame(PONG, "x" * 125)],
    ids=["empty", "one", "two", "longest", "pong"],
)
def test_control_frames_do_not_count_as_part_of_the_message(port: int, between: bytes) -> None:
    answer = talk(port, [frame(TEXT, "x" * (LIMIT - 1), fin=False) + between + frame(CONT, "x") + close()])

    assert answer.said[-2:] == [("text", b"x" * LIMIT), ("close", 1000)]


@pytest.mark.parametrize("count", [2, 3])
def test_every_message_has_the_whole_limit(port: int, count: int) -> None:
    message = fragments("x" * (LIMIT - 1), "x")

    answer = talk(port, [message] * count + [close()])

    assert answer.said == [("text", b"x" * LIMIT)] * count + [("close", 1000)]


def test_refused_message_leaves_others_alone(port: int) -> None:
    refused = talk(port, [head(TEXT, LIMIT + 1)])

    other = talk(port, [text("x" * LIMIT) + close()])

    assert refused.said == [("close", 1009)]
    assert other.said == [("text", b"x" * LIMIT), ("close", 1000)]


@pytest.mark.parametrize(("part", "count"), [(b"", 30_000), (b"xy", 30_000)], ids=["empty", "two-bytes"])
def test_endless_fragments_cost_no_more_than_what_they_hold(
    monkeypatch: pytest.MonkeyPatch, part: bytes, count: int
) -> None:
    monkeypatch.setattr("api.gateway.websocket.spent", lambda *_: 0.0)  # A patient peer, hours of it in a moment.
    socket = opened(KeptTransport())
    socket.data_received(frame(TEXT, fin=False))
    stream = frame(CONT, part, fin=False) * 1000
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    feed(socket, stream, count // 1000)

    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000


def test_peer_that_stays_after_a_refusal_is_cut() -> None:
    transport = KeptTransport()

    asyncio.run(wait_for_the_cut(transport))

    assert (transport.has_ended, transport.was_aborted) == (True, True)


def test_connection_that_its_owner_cut_brings_nothing_more() -> None:
    owner, transport = Cutting(), KeptTransport()
    socket = opened(transport, owner)
    written = len(transport.written)

    socket.data_received(text("first") + ping() + text("second"))

    assert owner.heard == ["first"]
    assert len(transport.written) == written


@pytest.mark.parametrize("behind", [b"", text("a"), head(TEXT, 1)], ids=["nothing", "text", "half-a-frame"])
def test_connection_that_the_peer_ended_is_closed_at_once(behind: bytes) -> None:
    transport = KeptTransport()
    socket = opened(transport)

    socket.data_received(behind)
    socket.eof_received()

    assert transport.was_closed


@pytest.mark.parametrize("parts", [(LONGEST,), (1, LONGEST - 1), (LONGEST, 0)], ids=["whole", "cut", "empty-last"])
async def test_stranger_may_say_as_much_as_a_hello_needs(parts: tuple[int, ...]) -> None:
    transport = KeptTransport()

    opened(transport, Strange()).data_received(fragments(*["x" * size for size in parts]))

    assert parse(bytes(transport.written)).said == [("text", b"x" * LONGEST)]


@pytest.mark.parametrize(
    "stream",
    [head(TEXT, LONGEST + 1), head(TEXT, LIMIT), frame(TEXT, "x" * LONGEST, fin=False) + head(CONT, 1)],
    ids=["one-more", "an-agents-longest", "fragments"],
)
async def test_stranger_that_says_more_is_refused_before_it_came(stream: bytes) -> None:
    transport = KeptTransport()

    opened(transport, Strange()).data_received(stream)

    assert parse(bytes(transport.written)).said == [("close", 1009)]


@pytest.mark.parametrize("many", [ping(), ping("x" * 125), text("x")], ids=["pings", "long-pings", "texts"])
async def test_stranger_that_says_much_that_is_short_is_refused_and_not_held(many: bytes) -> None:
    transport = KeptTransport()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    socket = opened(transport, Strange())
    socket.data_received(many * (LIMIT // 2 // len(many)))
    for _ in range(10):
        await asyncio.sleep(0)

    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert parse(bytes(transport.written)).said[-1] == ("close", 1009)
    assert transport.has_ended
    assert grown < 100_000


async def test_of_what_comes_while_we_close_little_is_kept() -> None:
    socket = opened(KeptTransport(), Strange())
    socket.close(1008, "bad_hello")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    socket.data_received(head(TEXT, LIMIT))
    feed(socket, bytes(LONGEST), LIMIT // LONGEST - 1)

    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000


@pytest.mark.parametrize("step", [MAX_REQUEST_BYTES, 1000, 1], ids=["at-once", "thousands", "bytewise"])
@pytest.mark.parametrize(("size", "status"), [(MAX_REQUEST_BYTES, 101), (MAX_REQUEST_BYTES + 1, 431)])
def test_request_ends_within_its_limit_however_it_is_cut(port: int, size: int, status: int, step: int) -> None:
    raw = request_of(size)

    with dialled(port) as peer:
        peer.send(raw[at : at + step] for at in range(0, size, step))
        answer = parse_head(peer.read_head())

    assert answer.status == status


class Strange(Echo):
    """Lets nobody in."""

    def is_stranger(self, socket: AgentSocket) -> bool:
        return True


class Cutting(Echo):
    """Cuts the connection with the first text."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None:
        self.heard.append(text)
        socket.abort()


def request_of(size_bytes: int) -> bytes:
    """A good request with as many fields of a thousand bytes as it takes."""
    fields = [f"X-{n:02}: {'a' * 992}" for n in range((size_bytes - 1000) // 1000)]
    missing = size_bytes - len(request(*fields, "X: "))
    raw = request(*fields, "X: " + "a" * missing)
    assert len(raw) == size_bytes
    return raw


def opened(transport: KeptTransport, owner: Echo | None = None) -> AgentSocket:
    socket = AgentSocket(owner or Echo(), Turns())
    socket.connection_made(transport)
    socket.data_received(request())
    return socket


def feed(socket: AgentSocket, stream: bytes, times: int) -> None:
    for _ in range(times):
        socket.data_received(stream)


async def wait_for_the_cut(transport: KeptTransport) -> None:
    """Refuse a frame, and let the time pass in which the peer should have gone."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    opened(transport).data_received(frame(3))
    assert not transport.was_aborted
    loop.time = lambda: begun + LINGER_S + 1  # type: ignore[method-assign]
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_who_sends_more_than_its_share_is_slowed_and_loses_nothing(port: int) -> None:
    """200 messages a second, of which the first second's may come at once."""
    count = 500
    began = time.monotonic()

    answer = talk(port, [b"".join(text(str(number)) for number in range(count)), close()])

    assert answer.said == [*(("text", str(number).encode()) for number in range(count)), ("close", 1000)]
    assert time.monotonic() - began >= (count - MESSAGES_PER_S * BURST_S) / MESSAGES_PER_S


def test_who_sends_too_fast_slows_nobody_else(port: int) -> None:
    with connected(port) as flooding:
        flooding.send([b"".join(text("x") for _ in range(2000))])

        answer = talk(port, [text("hello"), close()])

    assert answer.said == [("text", b"hello"), ("close", 1000)]
