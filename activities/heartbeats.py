"""Heartbeats while an activity waits on the world, so that a dead worker is noticed within the heartbeat timeout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_SHARE = 3  # Three beats per timeout: two may be lost.


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Beat in the background until the block ends. The block's own error passes through unchanged."""
    task = asyncio.ensure_future(_beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        return
    while True:
        activity.heartbeat()
        await asyncio.sleep(timeout.total_seconds() / _SHARE)
