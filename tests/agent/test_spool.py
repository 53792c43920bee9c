"""The disk spool: order, numbers, and what a kill leaves behind."""

from pathlib import Path

import pytest

from agent.spool import Spool

ALL = 1024 * 1024


def frames(spool: Spool, after_seq: int = 0) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while records := spool.read(found[-1][0] if found else after_seq, 64):
        found += records
    return found


def test_records_are_numbered_from_one_and_read_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    seqs = [spool.append("a"), spool.append("b"), spool.append("c")]

    assert seqs == [1, 2, 3]
    assert frames(spool) == [(1, "a"), (2, "b"), (3, "c")]
    assert frames(spool, 2) == [(3, "c")]
    assert frames(spool, 3) == []


def test_a_new_process_finds_what_the_old_one_said(tmp_path: Path) -> None:
    first = Spool(tmp_path, segment_bytes=4)
    first.append("aa")
    first.append("bb")
    first.append("cc")

    second = Spool(tmp_path, segment_bytes=4)

    assert second.last_seq == 3
    assert second.append("dd") == 4
    assert frames(second) == [(1, "aa"), (2, "bb"), (3, "cc"), (4, "dd")]


def test_half_a_record_at_the_end_is_cut_off(tmp_path: Path) -> None:
    Spool(tmp_path).append("whole")
    (segment,) = tmp_path.glob("*.frames")
    segment.write_bytes(segment.read_bytes() + b'{"half":')

    spool = Spool(tmp_path)

    assert spool.append("next") == 2
    assert frames(spool) == [(1, "whole"), (2, "next")]


@pytest.mark.parametrize("torn", [b"s", b"secon", b"second", b"\x00" * 7, b"sec\x00\x00\x00\x00"])
def test_whatever_a_kill_or_lost_power_left_of_the_last_record_the_earlier_ones_are_kept(
    tmp_path: Path, torn: bytes
) -> None:
    Spool(tmp_path).append("first")
    (segment,) = tmp_path.glob("*.frames")
    segment.write_bytes(b"first\n" + torn)

    spool = Spool(tmp_path)

    assert frames(spool) == [(1, "first")]
    assert spool.append("again") == 2
    assert frames(Spool(tmp_path)) == [(1, "first"), (2, "again")]


def test_acknowledged_segments_leave_the_disk_and_numbers_go_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=4)
    spool.append("aa")
    spool.append("bb")
    spool.append("cc")
    spool.append("dd")

    spool.forget(4)
    again = Spool(tmp_path, segment_bytes=4)

    assert [path.name for path in tmp_path.glob("*.frames")] == ["00000000000000000003.frames"]
    assert again.acked_seq == 4
    assert again.append("ee") == 5


def test_text_with_odd_line_separators_stays_one_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    spool.append("a\u2028b\x85c\x0bd")

    assert spool.read(0, ALL) == [(1, "a\u2028b\x85c\x0bd")]


def test_a_full_disk_keeps_nothing_of_a_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a")
    spool._out = _read_only(tmp_path / "read-only", spool)

    with pytest.raises(OSError, match=r"."):
        spool.append("b")

    assert spool.last_seq == 1
    assert frames(spool) == [(1, "a")]


def test_a_record_that_must_not_be_refused_is_held_in_memory_and_the_next_one_is_on_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a")
    spool._out = _read_only(tmp_path / "read-only", spool)

    held = [spool.append_or_hold("b"), spool.append("c")]

    assert held == [2, 3]
    assert frames(spool) == [(1, "a"), (2, "b"), (3, "c")]
    assert frames(Spool(tmp_path)) == [(1, "a"), (3, "c")]


def test_the_number_of_a_record_that_was_only_in_memory_is_not_given_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool._out = _read_only(tmp_path / "read-only", spool)
    spool.forget(spool.append_or_hold("a"))

    again = Spool(tmp_path)

    assert again.last_seq == again.acked_seq == 1
    assert again.append("b") == 2
    assert frames(again, again.acked_seq) == [(2, "b")]


def test_numbers_go_on_above_what_the_core_says_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a")

    spool.forget(3)

    assert spool.append("b") == 4
    assert frames(spool, spool.acked_seq) == [(4, "b")]


def test_a_torn_note_of_what_was_acknowledged_says_the_rest_again(tmp_path: Path) -> None:
    Spool(tmp_path).append("a")
    (tmp_path / "acked").write_bytes(b"00\x00\x00")

    spool = Spool(tmp_path)

    assert spool.acked_seq == 0
    assert frames(spool) == [(1, "a")]


def _read_only(path: Path, spool: Spool) -> int:
    import os

    os.close(spool._out)
    path.write_bytes(b"")
    return os.open(path, os.O_RDONLY)
