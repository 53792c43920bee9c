from __future__ import annotations

import pytest

from api.gateway.meter import BURST_S, BYTES_PER_S, MESSAGES_PER_S, owed_s, spent

NOW = 1000.0


class Meter:
    """One agent's number, as its socket keeps it."""

    def __init__(self) -> None:
        self._paid_at = 0.0

    def spend(self, now: float, size_bytes: int) -> float:
        self._paid_at = spent(self._paid_at, now, size_bytes)
        return owed_s(self._paid_at, now)


def accepted(size_bytes: int, seconds: float) -> int:
    """How many messages of that size are read within so many seconds of an agent that never pauses by itself."""
    meter, now, count = Meter(), NOW, 0
    while now < NOW + seconds:
        now += meter.spend(now, size_bytes)
        count += 1
    return count


def test_a_quiet_agent_is_never_held_up() -> None:
    meter = Meter()

    assert [meter.spend(NOW + second / 10, 10_000) for second in range(1000)] == [0.0] * 1000


def test_after_silence_a_seconds_worth_may_come_at_once() -> None:
    meter = Meter()

    waits = [meter.spend(NOW, 100) for _ in range(int(MESSAGES_PER_S * BURST_S) + 1)]

    assert waits[:-1] == pytest.approx([0.0] * (len(waits) - 1), abs=1e-9)
    assert waits[-1] == pytest.approx(1 / MESSAGES_PER_S)


def test_small_messages_are_limited_by_their_number() -> None:
    assert accepted(10, seconds=10) == pytest.approx(MESSAGES_PER_S * (10 + BURST_S), rel=0.02)


def test_large_messages_are_limited_by_their_bytes() -> None:
    size = 64 * 1024

    assert accepted(size, seconds=10) * size == pytest.approx(BYTES_PER_S * (10 + BURST_S), rel=0.02)


def test_the_allowance_of_a_long_silence_does_not_add_up() -> None:
    meter = Meter()
    meter.spend(NOW, 100)

    waits = [meter.spend(NOW + 3600, 100) for _ in range(int(MESSAGES_PER_S * BURST_S) + 2)]

    assert waits[-1] > 0
