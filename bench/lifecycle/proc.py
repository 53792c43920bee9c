"""CPU seconds and memory of processes, as the kernel counts them.

Source: proc(5): /proc/PID/stat fields 14 to 17 (utime, stime, cutime, cstime, in ticks), /proc/PID/status VmHWM, VmRSS.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """`ticks`: of the process and of those of its children that have ended and were waited for."""

    pid: int
    parent: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory now and at its highest, in KiB."""

    now_kib: int
    peak_kib: int


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process and all its descendants have used so far."""
    return tree_ticks(pid, _all_stats()) / _TICKS_PER_S


def memory(pid: int) -> Memory:
    """Of one process, without its children. Raises FileNotFoundError when it has ended."""
    return parse_memory((_PROC / str(pid) / "status").read_text())


def parse_stat(text: str) -> Stat:
    """The name in brackets may hold blanks and brackets: what counts begins after the last one."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(int(text.partition(" ")[0]), int(fields[1]), sum(map(int, fields[11:15])))


def parse_memory(text: str) -> Memory:
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return Memory(int(rows["VmRSS"].split()[0]), int(rows["VmHWM"].split()[0]))


def tree_ticks(root: int, stats: Iterable[Stat]) -> int:
    """Ticks of `root` and everything below it."""
    by_pid = {stat.pid: stat for stat in stats}
    return sum(stat.ticks for stat in by_pid.values() if _is_below(stat, root, by_pid))


def _is_below(stat: Stat, root: int, by_pid: dict[int, Stat]) -> bool:
    above: Stat | None = stat
    while above is not None and above.pid != root:
        above = by_pid.get(above.parent)
    return above is not None


def _all_stats() -> list[Stat]:
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            found.append(parse_stat((folder / "stat").read_text()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended between the listing and the reading.
    return found
