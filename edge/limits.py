"""The token bucket that holds one preview host to its requests per second. Pure."""

from __future__ import annotations


class TokenBucket:
    """Lets `rate` requests pass per second, and up to a second's worth (one at least) at once. 0 lets all pass."""

    __slots__ = ("_at", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(rate, 1.0)
        self._tokens = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more request may pass at `now` (seconds of any clock that never goes back)."""
        if self._rate <= 0:
            return True
        tokens = self._tokens + (now - self._at) * self._rate
        self._tokens = self._most if tokens > self._most else tokens
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
