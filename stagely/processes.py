"""Processes of this machine, as the kernel sees them."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """The kernel's letter for a process (R, S, D, Z), "" when there is none. Z is dead, though kill(pid, 0) works."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether this process still does anything."""
    return state_of(pid) not in ("", "Z", "X")
