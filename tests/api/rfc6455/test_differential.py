"""Our socket beside the library's server on damaged streams: no difference but the stricter refusals that are meant.

They are: a Host that is missing, comes twice or names no host; lengths that are not in their shortest form; reserved
bits by the first byte of a frame; a request of more than 16 KiB. Where the library hangs up on what is no HTTP, we say
400.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from api.gateway.turns import Turns
from api.gateway.websocket import AgentSocket
from tests.api.rfc6455.library import LEAVE, LEFT, Outcome, library_outcome, outcome, strict_outcome
from tests.api.rfc6455.peer import TEXT, Said, frame, head, instead, masked, request
from tests.api.rfc6455.stand_in import Echo
from tests.api.rfc6455.streams import Case, case
from tests.api.rfc6455.transport import KeptTransport

QUICK = 10_000
BATCH = 5_000  # Streams per event loop: every ended connection leaves a timer behind until its loop ends.


OPEN = Outcome(101, [], has_ended=False)
ECHOED = Outcome(101, [("text", b"a")], has_ended=False)
REFUSED = Outcome(400, [], has_ended=True)
FAILED = Outcome(101, [("close", 1002)], has_ended=True)
TOO_LARGE = Outcome(431, [], has_ended=True)

STRICTER = {
    "no-host": (request(without="Host"), REFUSED, OPEN),
    "two-hosts": (request("Host: b"), REFUSED, OPEN),
    "no-name-of-a-host": (instead("Host", "http://a"), REFUSED, OPEN),
    "length-of-1-in-2-bytes": (request() + head(TEXT, 1, form=2) + masked(b"a"), FAILED, ECHOED),
    "length-of-1-in-8-bytes": (request() + head(TEXT, 1, form=8) + masked(b"a"), FAILED, ECHOED),
    "request-of-17-kilobytes": (request(*[f"X-{n}: {'a' * 1700}" for n in range(10)]), TOO_LARGE, OPEN),
    "reserved-bit-in-the-first-byte": (request() + frame(TEXT, "a", rsv=4)[:1], FAILED, OPEN),
}


class TurnsByHand(Turns):
    def __init__(self) -> None:
        super().__init__()
        self._asked: list[Callable[[], None]] = []

    def ask(self, take: Callable[[], None]) -> None:
        self._asked.append(take)

    def give_all(self) -> None:
        while self._asked:
            self._asked.pop(0)()


class Leaving(Echo):
    """Sends every text back; closes on LEAVE."""

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None:
        if text == LEAVE:
            socket.close(LEFT, "bye")
        else:
            socket.send(text)


def our_outcome(given: Case) -> Outcome:
    turns = TurnsByHand()
    transport, socket = KeptTransport(), AgentSocket(Leaving(), turns)
    socket.connection_made(transport)
    for piece in given.pieces:
        socket.data_received(piece)
        turns.give_all()
        assert transport.is_read
    if given.ends:
        socket.eof_received()
    return outcome(bytes(transport.written), transport.has_ended)


async def differences(seeds: range) -> list[str]:
    """One line for each case that we answer otherwise than is meant; `case(seed)` gives it again."""
    return list(_differing(seeds))


def _differing(seeds: range) -> Iterator[str]:
    for seed in seeds:
        given = case(seed)
        ours, meant = our_outcome(given), strict_outcome(given.stream, ends=given.ends)
        if ours != meant:
            yield f"seed {seed}: {ours} instead of {meant}"


def seen(seeds: range) -> Counter[str]:
    """How often each kind of answer and of stricter refusal is among these cases."""
    found: Counter[str] = Counter()
    for given in map(case, seeds):
        meant = strict_outcome(given.stream, ends=given.ends)
        found.update({str(meant.status), *(_kind(said) for said in meant.said)})
        found["stricter"] += meant != library_outcome(given.stream, ends=given.ends)
        found["open at the end"] += not meant.has_ended
    return found


def _kind(said: Said) -> str:
    return f"close {said[1]!r}" if said[0] == "close" else said[0]


def test_damaged_streams_are_answered_as_the_library_does() -> None:
    assert asyncio.run(differences(range(QUICK))) == []


def test_damaged_streams_meet_every_kind_of_answer() -> None:
    found = seen(range(1000))

    assert {"101", "400", "403", "404", "405", "414", "426", "431", "505"} <= set(found)
    assert {"text", "pong", "close 1000", "close 1002", "close 1003", "close 1007", "close 1009"} <= set(found)
    assert found["stricter"] > 30
    assert found["open at the end"] > 30


@pytest.mark.parametrize(("stream", "ours", "theirs"), STRICTER.values(), ids=STRICTER)
def test_stricter_refusal_is_one_that_the_library_leaves_out(stream: bytes, ours: Outcome, theirs: Outcome) -> None:
    async def answer() -> Outcome:
        return our_outcome(Case(stream, [stream], ends=False))

    assert asyncio.run(answer()) == ours
    assert library_outcome(stream, ends=False) == theirs


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(1, 21))
def test_many_damaged_streams_are_answered_as_the_library_does(batch: int) -> None:
    assert asyncio.run(differences(range(batch * BATCH, (batch + 1) * BATCH))) == []
