"""The safety stop: a machine that nobody commands any more turns itself off.

That ends what it does, not what it costs: the reaper deletes the VM through the cloud's API.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent.connection import Contact
from agent.run import Program, TookTooLong, capture

POWEROFF_TIMEOUT_S = 120.0  # systemctl only files the order; containers then have 10 s to end.
LOOKS = 20  # How finely the limit is divided: 45 s of 15 minutes.

log = logging.getLogger("stagely.agent.watchdog")

PowerOff = Callable[[str], Awaitable[None]]


async def watch(contact: Contact, silence_limit_s: float, power_off: PowerOff) -> None:
    """Call `power_off` once the core has been silent, or has only refused, for this long; then return."""
    while (silent_s := time.monotonic() - contact.last) < silence_limit_s:  # noqa: ASYNC110  # It waits for something *not* to happen.
        await asyncio.sleep(min(silence_limit_s / LOOKS, silence_limit_s - silent_s))
    await power_off(f"for {silent_s:.0f} s {contact.refusal or 'the core has been silent'}")


async def power_off(reason: str) -> None:
    """Turn this machine off and wait for systemd to end the agent, too: one that left would be started again."""
    log.warning("powering off: %s", reason)
    try:
        finished = await capture(Program(["systemctl", "poweroff"], POWEROFF_TIMEOUT_S))
    except (OSError, TookTooLong) as error:
        log.error("power-off failed: %s", error)
        return
    if finished.exit_code:
        log.error("power-off failed: %s", finished.stderr.strip())
        return
    await asyncio.sleep(POWEROFF_TIMEOUT_S)
