"""Turns for those who have much to say: one of them in each round of the event loop, and everybody's few bytes between.

Without it all who flood are read in one round, and who only sends a heartbeat waits until all of that is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """First come, first served; one for all sockets of an event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def ask(self, take: Callable[[], None]) -> None:
        """Call `take` in a round of its own. It may ask again and then stands at the end."""
        self._waiting.append(take)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_due = False
        take = self._waiting.popleft()
        try:
            take()
        finally:
            self._schedule()
