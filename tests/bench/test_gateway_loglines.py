"""Numbered lines: what was lost, doubled or misplaced is counted, and frames hold what they say."""

from __future__ import annotations

import pytest

from agent.protocol import Log, decode_to_core
from bench.gateway.hostile import largest_data, log_message
from bench.gateway.loglines import LINE_BYTES, Tally, frame_text, line, tally

FOUR = [line(7, 0), line(7, 1), line(7, 2), line(7, 3)]


def test_a_line_has_its_length_with_its_break() -> None:
    assert {len(line(49, n)) + 1 for n in (0, 1, 8191, 99_999_999)} == {LINE_BYTES}


def test_a_frame_is_a_message_of_the_protocol_with_these_lines() -> None:
    data = f"{line(3, 10)}\n{line(3, 11)}\n"

    message = decode_to_core(frame_text(3, 5, 10, 2).decode())

    assert message == Log(5, "bench/build", "build/app", data)


def test_a_flood_s_frame_is_a_message_of_the_protocol_with_the_most_it_may_hold() -> None:
    message = decode_to_core(log_message(9, largest_data()).decode())

    assert isinstance(message, Log)
    assert (message.seq, len(message.data)) == (9, 65_500)


def test_all_lines_in_order_are_no_loss() -> None:
    assert tally(FOUR, 7, 4) == Tally(0, 0, 0)


def test_a_line_that_is_not_there_is_lost() -> None:
    assert tally(FOUR[:1] + FOUR[2:], 7, 4) == Tally(1, 0, 0)


def test_lines_at_the_end_that_are_not_there_are_lost() -> None:
    assert tally(FOUR[:2], 7, 4) == Tally(2, 0, 0)


def test_a_line_that_is_there_twice_is_doubled() -> None:
    assert tally([FOUR[0], FOUR[0], *FOUR[1:]], 7, 4) == Tally(0, 1, 0)


def test_a_line_behind_a_later_one_is_misplaced() -> None:
    assert tally([FOUR[0], FOUR[2], FOUR[1], FOUR[3]], 7, 4) == Tally(0, 0, 1)


def test_a_line_of_another_agent_is_an_error() -> None:
    with pytest.raises(ValueError, match="agent 7 never wrote '0008 "):
        tally([line(8, 0)], 7, 1)


def test_a_line_that_was_changed_on_the_way_is_an_error() -> None:
    with pytest.raises(ValueError, match="never wrote"):
        tally([FOUR[0][:-1] + "!"], 7, 1)


def test_a_line_beyond_those_written_is_an_error() -> None:
    with pytest.raises(ValueError, match="never wrote"):
        tally(FOUR, 7, 3)
