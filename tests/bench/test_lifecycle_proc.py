"""What bench.lifecycle reads of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.lifecycle.proc import Memory, Stat, cpu_seconds, memory, parse_memory, parse_stat, tree_ticks

STAT = "41 (a (b) c) S 7 41 41 0 -1 4194560 2120 900 0 0 310 25 40 5 20 0 9 0 1234 1000 500 18446744073709551615"
STATUS = "Name:\tpython\nVmPeak:\t  400000 kB\nVmHWM:\t   81920 kB\nVmRSS:\t   70144 kB\nThreads:\t9\n"


def test_a_name_with_blanks_and_brackets_does_not_shift_the_fields() -> None:
    assert parse_stat(STAT) == Stat(pid=41, parent=7, ticks=310 + 25 + 40 + 5)


def test_memory_is_read_in_kib() -> None:
    assert parse_memory(STATUS) == Memory(now_kib=70144, peak_kib=81920)


def test_a_tree_is_the_process_with_children_and_grandchildren_and_nobody_else() -> None:
    processes = [Stat(1, 0, 1000), Stat(10, 1, 1), Stat(11, 10, 20), Stat(12, 11, 300), Stat(13, 1, 5000)]

    assert tree_ticks(10, processes) == 321


def test_the_work_of_a_child_that_has_ended_counts() -> None:
    before = cpu_seconds(os.getpid())

    subprocess.run([sys.executable, "-c", "sum(range(6_000_000))"], check=True)

    assert cpu_seconds(os.getpid()) - before > 0.02


def test_a_process_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()

    with pytest.raises(FileNotFoundError):
        memory(ended.pid)
