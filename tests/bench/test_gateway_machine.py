"""What the kernel says of processes and cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.gateway.machine import Meter, TooSmall, allow_files, cpu_seconds, parse_busy, parse_pss, pss_kib, unhindered

SMAPS = """55d0-7ffd ---p 00000000 00:00 0                          [rollup]
Rss:               14236 kB
Pss:                4711 kB
Pss_Dirty:          3412 kB
Pss_Anon:           3308 kB
Pss_File:           1403 kB
"""
STAT = """cpu  1000 20 300 9000 50 0 7 0 0 0
cpu0 400 10 100 4000 30 0 5 2 0 0
cpu1 600 10 200 5000 20 0 2 0 0 0
intr 1
"""


def test_memory_of_its_own_is_read_in_kib() -> None:
    assert parse_pss(SMAPS) == 3308


def test_busy_seconds_of_a_core_leave_idle_and_waiting_for_disks_out() -> None:
    assert parse_busy(STAT, 0) * os.sysconf("SC_CLK_TCK") == 400 + 10 + 100 + 5 + 2


def test_a_core_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no core 2"):
        parse_busy(STAT, 2)


def test_this_process_uses_memory_and_cpu() -> None:
    meter = Meter(os.getpid(), min(os.sched_getaffinity(0)))
    before = cpu_seconds(os.getpid())

    sum(range(1_000_000))

    assert cpu_seconds(os.getpid()) > before
    assert meter.read().cpu_s > 0
    assert pss_kib(os.getpid()) > 1000


def test_a_process_that_ended_has_no_cpu_clock() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        cpu_seconds(2**22 + 1)  # Above the highest that Linux gives (proc(5), pid_max).


def test_more_agents_than_descriptors_are_refused_with_the_limit() -> None:
    with pytest.raises(TooSmall, match="need 1000000000200 open files"):
        allow_files(1_000_000_000_000)


def may_go_before_others() -> bool:
    usual = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, usual, os.sched_param(0))
    return True


@pytest.mark.skipif(not may_go_before_others(), reason="only root with CAP_SYS_NICE may go before others")
def test_load_goes_before_others_for_as_long_as_it_measures_and_its_children_do_not() -> None:
    usual = os.sched_getscheduler(0)
    asks = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]

    with unhindered():
        meanwhile = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        child = subprocess.run(asks, capture_output=True, check=True)

    assert meanwhile == os.SCHED_FIFO
    assert int(child.stdout) == os.SCHED_OTHER
    assert os.sched_getscheduler(0) == usual
