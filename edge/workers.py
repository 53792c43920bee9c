"""Several processes behind one address: started, started again when one dies, and ended together.

The kernel spreads connections over them (SO_REUSEPORT); they share nothing. One process needs none of this.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from edge.config import Address, Settings
from edge.log import Log

EXIT_CANNOT_SERVE = 2  # A worker says so by its exit code: another one could not either.
RESTART_AFTER_S = 1.0  # From one start to the next: a worker that dies at once must not take the machine with it.
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}

Serve = Callable[[Settings], int]


def supervise(settings: Settings, log: Log, serve: Serve) -> int:
    """Run `serve` in `settings.workers` processes until SIGTERM or SIGINT. Gives the exit code.

    Raises OSError when an address cannot be used.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with ExitStack() as reserved:
        share = dataclasses.replace(
            settings,
            listen=tuple(_reserve(reserved, *address) for address in settings.listen),
            tls_listen=tuple(_reserve(reserved, *address) for address in settings.tls_listen),
            rate_limit=settings.rate_limit / settings.workers,
            shares_address=True,
        )
        shares = [
            dataclasses.replace(share, metrics_listen=_metrics_of(place, settings.metrics_listen, reserved))
            for place in range(settings.workers)
        ]
        exit_code = _Workers(shares, log, serve, before).run()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return exit_code


def _reserve(stack: ExitStack, host: str, port: int) -> tuple[str, int]:
    """Hold an address for the workers, without listening, and give its real port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # First alone: with SO_REUSEPORT a leftover of an earlier edge would take its part of the visitors unnoticed.
    with socket.socket(family) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
        port = alone.getsockname()[1]
    held = stack.enter_context(socket.socket(family))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, port))
    return host, port


def _metrics_of(place: int, addresses: tuple[Address, ...], reserved: ExitStack) -> tuple[Address, ...]:
    """Where the worker at this place, counted from 0, is read: one port further each, for nobody can add up others."""
    return tuple(_reserve(reserved, host, port + place if port else 0) for host, port in addresses)


class _Workers:
    """The processes and when each place may be filled next. Signals are waited for, never handled."""

    def __init__(self, shares: list[Settings], log: Log, serve: Serve, mask: set[signal.Signals | int]) -> None:
        """shares: by place, the settings of the worker there."""
        self._shares = shares
        self._log = log
        self._serve = serve
        self._mask = mask
        self._places: dict[int, int] = {}  # By process.
        self._start_at: dict[int, float] = dict.fromkeys(range(len(shares)), 0.0)  # By place, where it is empty.
        self._is_stopping = False
        self._exit_code = 0

    def run(self) -> int:
        while not self._is_stopping or self._places:
            wait_s = self._fill()
            arrived = signal.sigtimedwait(_SIGNALS, wait_s) if wait_s is not None else signal.sigwaitinfo(_SIGNALS)
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                self._stop()
            self._bury()
        return self._exit_code

    def _fill(self) -> float | None:
        """Start what may be started; seconds until the next may, None when no place is empty."""
        if self._is_stopping:
            return None
        now = time.monotonic()
        for place in [place for place, at in self._start_at.items() if at <= now]:
            del self._start_at[place]
            self._places[self._start(place)] = place
        return min(self._start_at.values()) - now if self._start_at else None

    def _start(self, place: int) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _die_with(parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            code = self._serve(self._shares[place])
        except BaseException as error:  # Nothing may unwind into the copy of the supervisor's frames.
            self._log.error("worker failed", error=f"{type(error).__name__}: {error}", pid=os.getpid())
        finally:
            os._exit(code)

    def _bury(self) -> None:
        """Note who ended; signals of several may have come as one."""
        while self._places:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            place = self._places.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._is_stopping:
                continue
            self._start_at[place] = time.monotonic() + RESTART_AFTER_S
            if code == EXIT_CANNOT_SERVE:
                self._exit_code = code
                self._stop()
            else:
                self._log.error("worker ended", pid=pid, exit_code=code, restart_after_s=RESTART_AFTER_S)

    def _stop(self) -> None:
        self._is_stopping = True
        for pid in self._places:
            os.kill(pid, signal.SIGTERM)


def _die_with(parent: int) -> None:
    """Drain also when the supervisor is killed without a word."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(EXIT_CANNOT_SERVE)
