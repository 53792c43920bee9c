"""Turns for those who have much to say: so much in each round of the event loop, and everybody's few bytes between.

Without it all who flood are read in one round, and who only sends a heartbeat waits until all of that is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

ROUND_BYTES = 32 * 1024  # What one round may take of all who have much to say: 0.3 ms of work.


class Turns:
    """First come, first served; one for all sockets of an event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._left_bytes = ROUND_BYTES  # Of this round.
        self._is_due = False

    def grant(self, size_bytes: int) -> bool:
        """Whether so much may be taken at once: this round has room for it, and nobody waits.

        Waiting costs a socket that is stopped and read again, two calls of the kernel.
        """
        if self._waiting or size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        self._schedule()
        return True

    def ask(self, take: Callable[[], None]) -> None:
        """Call `take` in a round of its own. It may ask again and then stands at the end."""
        self._waiting.append(take)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A round begins: it is for who waits longest, or else for whoever comes."""
        self._is_due = False
        if not self._waiting:
            self._left_bytes = ROUND_BYTES
            return
        self._left_bytes = 0
        take = self._waiting.popleft()
        try:
            take()
        finally:
            self._schedule()
