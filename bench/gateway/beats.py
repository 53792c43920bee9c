"""Heartbeats of many agents, evenly spread, and a share of what is owed by the passing of time."""

from __future__ import annotations

import asyncio
import time

from bench.gateway.agents import Crowd

TICK_S = 0.01


class Quota:
    """How much is due at a rate. What could not be used in `burst_s` is forgotten."""

    def __init__(self, per_s: float, burst_s: float = 0.1) -> None:
        self._per_s = per_s
        self._most = per_s * burst_s
        self._due = 0.0
        self._at = 0.0

    def due(self, now: float) -> int:
        """Whole pieces since the last call, by a clock that began at 0."""
        self._due = min(self._due + (now - self._at) * self._per_s, max(self._most, 1.0))
        self._at = now
        whole = int(self._due)
        self._due -= whole
        return whole


async def beat_evenly(crowd: Crowd, frame: bytes, seconds: float, interval_s: float, probe_each: int) -> int:
    """Each line sends `frame` every `interval_s`; every so many of them ask for an answer. How many were sent."""
    lines = list(crowd.lines.values())
    began, sent = time.monotonic(), 0
    while (passed_s := time.monotonic() - began) < seconds:
        due = int(passed_s / interval_s * len(lines))
        for n in range(sent, due):
            line = lines[n % len(lines)]
            line.send(frame)
            if n % probe_each == 0:
                crowd.probe(line)
        sent = max(sent, due)
        await asyncio.sleep(TICK_S)
    return sent
