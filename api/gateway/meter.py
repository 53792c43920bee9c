"""How much one agent may send: a token bucket in one number. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGES_PER_S = 200.0  # An agent batches lines for 100 ms: twenty times what a busy build sends.
BYTES_PER_S = 2.0 * 1024 * 1024  # Some 20,000 lines a second of one machine, more than anybody reads.
BURST_S = 1.0  # What an agent that was quiet may send at once: a spool after a reconnect.


@dataclass(slots=True)
class Meter:
    """Seconds of its allowance that an agent has used, as the time at which all of it would be paid back."""

    _paid_at: float = 0.0

    def spend(self, now: float, size_bytes: int) -> float:
        """Take one message of so many bytes into account; the seconds for which nothing more may be read (0: go on)."""
        cost_s = max(1.0 / MESSAGES_PER_S, size_bytes / BYTES_PER_S)
        self._paid_at = max(self._paid_at, now - BURST_S) + cost_s
        return self.owed(now)

    def owed(self, now: float) -> float:
        """The seconds for which nothing more may be read (0: go on)."""
        return max(0.0, self._paid_at - now)
