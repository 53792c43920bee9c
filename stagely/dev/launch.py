"""Becomes another program that dies with its supervisor.

Run by file with the standard library only: it costs 15 ms. `launch.py PARENT SIGNAL PROGRAM ARGUMENT...`: the
kernel sends SIGNAL when the parent is gone, also after `kill -9`.
It does so when the parent's *thread* ends, so the supervisor starts children from its main thread.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
EXIT_ORPHANED = 3


def main(arguments: list[str]) -> None:
    """Set the death signal, make sure that the parent was still there to set it for, and exec."""
    parent, signal_number, *program = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):  # It died before prctl: no signal will ever come.
        sys.exit(EXIT_ORPHANED)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
