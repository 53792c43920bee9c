"""Cores, descriptors, and what processes use, as the kernel counts it.

Source: proc(5): /proc/PID/smaps_rollup (Pss_Anon), /proc/stat; clock_gettime(2) and linux/posix-timers.h: the CPU
clock of another process is (~PID << 3) | 2, in nanoseconds and with threads that have ended.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CPUCLOCK_SCHED = 2
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = (3, 4)  # idle and iowait, counted behind the name.
_SPARE_FILES = 200  # Engines' connections, logs, libraries.


class TooSmall(Exception):
    """This machine cannot carry the measurement; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Cores:
    """`target` for what is measured, `load` for everything else."""

    target: int
    load: int


def two_cores() -> Cores:
    """The first two cores that this process may use. Raises TooSmall."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise TooSmall(f"the target and the load need a core each, and this process may use {len(usable)}")
    return Cores(usable[0], usable[1])


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, with what it starts from now on. 0 is this process."""
    os.sched_setaffinity(pid, {core})


@contextmanager
def unhindered() -> Iterator[None]:
    """This process goes before all others on its core, where we may say so; what it starts does not.

    Otherwise waits are measured that are the scheduler's own: who wakes up waits for up to 3 ms until the running
    process has had its slice, whatever their nice values.
    """
    usual, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, usual, parameter)


def allow_files(connections: int) -> None:
    """Raise the limit of descriptors for this process and its children. Raises TooSmall."""
    needed = connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooSmall(f"{connections} agents need {needed} open files, the hard limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of one process, all its threads, without its children. Raises OSError when it has ended."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def pss_kib(pid: int) -> int:
    """Memory that is one process's own: without files, which cost less the more others have them open, too.

    Raises FileNotFoundError when it has ended.
    """
    return parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_pss(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1])
    raise ValueError("no line `Pss_Anon:` in smaps_rollup")


def core_busy_seconds(core: int) -> float:
    """Seconds that anybody has used of one core since the machine began."""
    return parse_busy(Path("/proc/stat").read_text(), core)


def parse_busy(text: str, core: int) -> float:
    for line in text.splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            # Guests' time (the last two fields) is in user time already.
            used = sum(int(t) for i, t in enumerate(ticks[:8]) if i not in _IDLE_FIELDS)
            return used / _TICKS_PER_S
    raise ValueError(f"no core {core} in /proc/stat")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one stretch took. `beside_s`: seconds of the target's core that were not the target's own."""

    wall_s: float
    cpu_s: float
    beside_s: float

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.wall_s

    @property
    def beside_percent(self) -> float:
        return 100 * self.beside_s / self.wall_s


class Meter:
    """Counts from where it is made."""

    def __init__(self, pid: int, core: int) -> None:
        self._pid, self._core = pid, core
        self._cpu, self._busy, self._at = cpu_seconds(pid), core_busy_seconds(core), time.monotonic()

    def read(self) -> Spent:
        cpu_s = cpu_seconds(self._pid) - self._cpu
        busy_s = core_busy_seconds(self._core) - self._busy
        return Spent(time.monotonic() - self._at, cpu_s, max(0.0, busy_s - cpu_s))
