"""Work for Redis that nobody waits for, in a loop of its own: a Redis that hangs holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from api.clients import REDIS_ERRORS
from stagely.logs import get_logger

PAUSE_S = 0.2  # Five times a second is live to any eye, and each telling costs as much as storing a batch.

log = get_logger()


class Nudges:
    """Names go in at any rate; `tell` gets those that gathered meanwhile, each once, at most every PAUSE_S.

    What fails is not told again.
    """

    def __init__(self, tell: Callable[[list[str]], Awaitable[None]], purpose: str) -> None:
        self._tell = tell
        self._purpose = purpose
        self._waiting: set[str] = set()
        self._arrived = asyncio.Event()

    def put(self, names: Iterable[str]) -> None:
        self._waiting.update(names)
        if self._waiting:
            self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            names, self._waiting = sorted(self._waiting), set()
            try:
                await self._tell(names)
            except REDIS_ERRORS as error:
                # Readers also look by themselves every second, and the next heartbeat refreshes its routes again.
                log.warning("nudge lost", purpose=self._purpose, error_code="redis_away", reason=str(error)[:200])
            await asyncio.sleep(PAUSE_S)
