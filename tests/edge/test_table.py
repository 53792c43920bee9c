"""The route table by itself, with a clock and a Redis that a test turns by hand."""

from __future__ import annotations

import io

from edge.config import Limits
from edge.log import Log
from edge.routes import encode
from edge.table import LAST_KNOWN_S, UNKNOWN_KEPT_S, UNKNOWN_MAX, Entry, RouteTable
from tests.edge.conftest import ready_route


class World:
    """A table whose questions are kept instead of sent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.is_reachable = True
        self.asked: list[str] = []
        self.answers: list[Entry | None] = []
        self.table = RouteTable(self._ask, Limits(), 1000, Log(io.StringIO()), lambda: self.now)

    def _ask(self, label: str) -> bool:
        if self.is_reachable:
            self.asked.append(label)
        return self.is_reachable

    def know(self, label: str) -> None:
        self.table.resolve(label, self.answers.append)
        self.table.learned(label, encode(ready_route(80)))

    def lose_redis(self) -> None:
        self.is_reachable = False
        self.table.lost()

    def find_redis(self) -> None:
        self.is_reachable = True
        self.table.back()


def test_many_visitors_of_one_unknown_host_ask_redis_once() -> None:
    world = World()

    for _ in range(3):
        world.table.resolve("a", world.answers.append)
    world.table.learned("a", None)

    assert world.asked == ["a"]
    assert [entry.route for entry in world.answers if entry] == [None, None, None]


def test_last_known_route_is_forgotten_after_a_minute_without_redis() -> None:
    world = World()
    world.know("a")

    world.lose_redis()
    world.now += LAST_KNOWN_S - 1
    world.table.sweep()
    within = world.table.verified("a")
    world.now += 2
    world.table.sweep()

    assert within is not None
    assert world.table.verified("a") is None


def test_changed_route_is_not_served_again_even_while_redis_is_away() -> None:
    world = World()
    world.know("a")
    world.answers.clear()

    world.table.changed("a")
    world.lose_redis()
    world.table.resolve("a", world.answers.append)

    assert world.table.verified("a") is None
    assert world.answers == [None]


def test_minute_of_trust_is_not_prolonged_by_a_redis_that_comes_and_goes() -> None:
    world = World()
    world.know("a")
    world.answers.clear()

    world.lose_redis()
    world.now += LAST_KNOWN_S - 1
    world.find_redis()
    world.lose_redis()
    world.now += 2
    world.table.resolve("a", world.answers.append)

    assert world.answers == [None]


def test_visitor_that_waits_when_redis_goes_away_gets_the_last_known_route() -> None:
    world = World()
    world.know("a")
    world.lose_redis()
    world.find_redis()
    world.answers.clear()

    world.table.resolve("a", world.answers.append)
    world.table.resolve("b", world.answers.append)
    world.lose_redis()

    assert world.answers[0] is not None
    assert world.answers[1] is None


def test_changed_route_is_asked_for_again_at_once() -> None:
    world = World()
    world.know("a")

    world.table.changed("a")

    assert world.asked == ["a", "a"]


def test_unknown_host_is_remembered_for_a_short_time() -> None:
    world = World()
    world.table.learned("a", None)

    before = world.table.verified("a")
    world.now += UNKNOWN_KEPT_S + 1
    world.table.sweep()

    assert before is not None
    assert before.route is None
    assert world.table.verified("a") is None


def test_guessed_hosts_take_bounded_memory() -> None:
    world = World()

    for n in range(3 * UNKNOWN_MAX):
        world.table.learned(f"guess{n}", None)

    assert len(world.table._unknown) <= UNKNOWN_MAX


def test_label_that_is_none_is_never_sent_to_redis() -> None:
    world = World()

    world.table.resolve("-a", world.answers.append)

    assert world.asked == []
    assert [entry.route for entry in world.answers if entry] == [None]
