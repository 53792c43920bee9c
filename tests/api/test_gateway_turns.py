"""Who has much to say waits for a turn; who has little does not."""

from __future__ import annotations

import asyncio

import pytest

from api.gateway.turns import ROUND_BYTES, Turns
from api.gateway.websocket import FULL, TURN, TURN_BYTES, AgentSocket
from tests.api.rfc6455.peer import CLOSE, TEXT, close, frame, parse_frames, request, text
from tests.api.rfc6455.stand_in import Echo
from tests.api.rfc6455.transport import KeptTransport

LONG = TURN_BYTES + 1


class Listener(Echo):
    """Keeps in what order texts were taken, by their first letter."""

    def __init__(self) -> None:
        self.heard = ""
        self.fails = False

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None:
        if self.fails:
            raise ValueError
        self.heard += text[0]


class Room:
    """Sockets of one owner, on one loop."""

    def __init__(self) -> None:
        self.owner = Listener()
        self._turns = Turns()

    def enter(self) -> tuple[AgentSocket, KeptTransport]:
        transport, socket = KeptTransport(), AgentSocket(self.owner, self._turns)
        socket.connection_made(transport)
        socket.data_received(request())
        return socket, transport


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_each_turn_has_a_round_of_its_own() -> None:
    turns, order = Turns(), ""

    def note(name: str) -> None:
        nonlocal order
        order += name

    turns.ask(lambda: note("a"))
    turns.ask(lambda: note("b"))
    for _ in range(3):
        await asyncio.sleep(0)
        note("|")

    assert order == "a|b||"


async def test_who_asks_again_in_its_turn_stands_behind_the_others() -> None:
    turns, order = Turns(), ""

    def take(name: str, again: int) -> None:
        nonlocal order
        order += name
        if again:
            turns.ask(lambda: take(name, again - 1))

    turns.ask(lambda: take("a", 2))
    turns.ask(lambda: take("b", 1))
    await rounds(8)

    assert order == "ababa"


async def test_a_round_has_room_for_some_bytes_at_once_and_the_next_for_as_many() -> None:
    turns = Turns()
    half = ROUND_BYTES // 2

    first = [turns.grant(size) for size in (half, half + 1, half, 1)]
    await rounds(1)
    second = turns.grant(ROUND_BYTES)

    assert (first, second) == ([True, False, True, False], True)


async def test_nothing_is_granted_past_those_who_wait_nor_beside_a_turn() -> None:
    turns, granted = Turns(), list[bool]()

    turns.ask(lambda: granted.append(turns.grant(1)))
    granted.append(turns.grant(1))
    await rounds(1)
    granted.append(turns.grant(1))
    await rounds(1)
    granted.append(turns.grant(1))

    assert granted == [False, False, False, True]


async def test_turn_that_fails_takes_nobody_elses() -> None:
    turns, taken, failures = Turns(), asyncio.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def fail() -> None:
        raise ValueError

    turns.ask(fail)
    turns.ask(taken.set)
    await asyncio.wait_for(taken.wait(), 5)

    assert [type(failure) for failure in failures] == [ValueError]


async def test_socket_whose_turn_fails_is_ended_and_not_left_unread() -> None:
    room, failures = Room(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    socket, transport = room.enter()
    room.owner.fails = True

    socket.data_received(text("A" * LONG))
    await rounds(2)

    assert [type(failure) for failure in failures] == [ValueError]
    assert transport.was_aborted


async def test_what_a_round_has_room_for_is_taken_without_waiting() -> None:
    room = Room()
    (a, one), (b, other) = room.enter(), room.enter()
    most = "A" * (ROUND_BYTES * 3 // 4)

    a.data_received(text(most))
    was_read = one.is_read
    b.data_received(text(most.lower()))
    at_once = room.owner.heard
    await rounds(3)

    assert (was_read, at_once, room.owner.heard) == (True, "A", "Aa")
    assert other.is_read


async def test_few_bytes_are_taken_before_the_many_that_came_first() -> None:
    room = Room()
    (a, _), (b, _), (c, _) = room.enter(), room.enter(), room.enter()

    a.data_received(text("A" * LONG) * 2)
    b.data_received(text("B" * LONG) * 2)
    c.data_received(text("C"))
    at_once = room.owner.heard
    await rounds(8)

    assert at_once == "C"
    assert room.owner.heard == "CABAB"


async def test_who_waits_for_its_turn_is_not_read_from_and_then_is() -> None:
    room = Room()
    socket, transport = room.enter()

    socket.data_received(text("A" * LONG))
    was_read = transport.is_read
    await rounds(2)

    assert not was_read
    assert transport.is_read
    assert room.owner.heard == "A"


async def test_pause_that_comes_during_the_wait_outlasts_it() -> None:
    room = Room()
    socket, transport = room.enter()
    socket.data_received(text("A" * LONG))

    socket.pause(FULL)
    await rounds(2)
    heard_while_paused, was_read = room.owner.heard, transport.is_read
    socket.resume(FULL)
    await rounds(2)

    assert (heard_while_paused, was_read) == ("", False)
    assert room.owner.heard == "A"
    assert transport.is_read


async def test_socket_that_is_lost_during_the_wait_says_nothing_more() -> None:
    room = Room()
    socket, _ = room.enter()
    socket.data_received(text("A" * LONG))

    socket.connection_lost(None)
    await rounds(2)

    assert room.owner.heard == ""
    assert not socket.is_paused_for(TURN)


@pytest.mark.parametrize("cut", [20, 100, LONG // 2, LONG, LONG + 7])
async def test_frame_that_comes_in_pieces_is_taken_when_it_is_whole(cut: int) -> None:
    room = Room()
    socket, _ = room.enter()
    whole = text("A" * LONG) + text("B")

    socket.data_received(whole[:cut])
    await rounds(2)
    heard_in_part = room.owner.heard
    socket.data_received(whole[cut:])
    await rounds(3)

    assert heard_in_part == ""
    assert room.owner.heard == "AB"


async def test_connection_that_we_close_inside_a_frame_ends_in_order() -> None:
    room = Room()
    socket, transport = room.enter()
    upgrade = len(transport.written)
    whole = text("A" * 100)
    socket.data_received(whole[:50])

    socket.close(4003, "revoked")
    socket.data_received(whole[50:] + close(4003))
    await rounds(3)

    assert parse_frames(bytes(transport.written[upgrade:])) == [(CLOSE, (4003).to_bytes(2) + b"revoked")]
    assert transport.has_ended
    assert room.owner.heard == ""


async def test_agent_that_ends_its_side_inside_a_frame_is_let_go() -> None:
    room = Room()
    socket, transport = room.enter()

    socket.data_received(frame(TEXT, "A" * 100)[:50])
    socket.eof_received()

    assert transport.has_ended
    assert room.owner.heard == ""
