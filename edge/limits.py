"""The token bucket that holds one preview host to its requests per second. Pure."""

from __future__ import annotations


class TokenBucket:
    """Lets `rate` requests pass per second, and up to a second's worth at once after a pause. 0 lets all pass."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more request may pass at `now` (seconds of any clock that never goes back)."""
        if self._rate <= 0:
            return True
        tokens = self._tokens + (now - self._at) * self._rate
        self._tokens = self._rate if tokens > self._rate else tokens
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
