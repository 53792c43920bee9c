"""What is remembered of pure functions, and what is not."""

from __future__ import annotations

import pytest

from edge.memo import KEY_MAX, KEYS_SIZE_MAX, Memo


def refuse(key: bytes) -> int:
    raise ValueError(key)


def test_key_is_remembered_from_its_second_sighting_on() -> None:
    memo = Memo(len)

    assert [memo[b"abc"], len(memo), memo[b"abc"], len(memo), memo[b"abc"], len(memo)] == [3, 0, 3, 1, 3, 1]


class Unmarked(bytes):
    """Its hash leaves no mark: a new table looks as if it had been there."""

    def __hash__(self) -> int:
        return 0


def test_key_whose_hash_is_empty_is_remembered_from_its_second_sighting_on_too() -> None:
    memo = Memo(len)

    assert [memo[Unmarked(b"abc")], len(memo), memo[Unmarked(b"abc")], len(memo)] == [3, 0, 3, 1]


def test_keys_that_never_come_again_are_not_kept() -> None:
    memo = Memo(len)

    found = {memo[b"%08d" % number] for number in range(10_000)}

    assert found == {8}
    assert len(memo) < 300  # A few share the one byte of another's hash.


def test_error_is_raised_each_time_and_not_remembered() -> None:
    memo = Memo(refuse)

    for _ in range(3):
        with pytest.raises(ValueError, match="abc"):
            memo[b"abc"]

    assert len(memo) == 0


def test_long_key_is_never_kept() -> None:
    memo = Memo(len)

    assert {memo[b"x" * (KEY_MAX + 1)] for _ in range(3)} == {KEY_MAX + 1}
    assert len(memo) == 0


def test_all_keys_together_stay_below_their_limit() -> None:
    memo = Memo(len)
    keys = [b"%08d" % number * (KEY_MAX // 8) for number in range(KEYS_SIZE_MAX // KEY_MAX + 100)]

    for key in [*keys, *keys]:
        assert memo[key] == KEY_MAX

    assert 0 < sum(map(len, memo)) <= KEYS_SIZE_MAX
