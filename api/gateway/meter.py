"""How much one agent may send: a token bucket in one number, the time at which all that it sent is paid for. Pure."""

from __future__ import annotations

MESSAGES_PER_S = 200.0  # An agent batches lines for 100 ms: twenty times what a busy build sends.
BYTES_PER_S = 2.0 * 1024 * 1024  # Some 20,000 lines a second of one machine, more than anybody reads.
BURST_S = 1.0  # What an agent that was quiet may send at once: a spool after a reconnect.
_MESSAGE_S = 1.0 / MESSAGES_PER_S


def spent(paid_at: float, now: float, size_bytes: int) -> float:
    """`paid_at` after one more message of so many bytes. While it lies ahead of now nothing more may be read."""
    cost_s = size_bytes / BYTES_PER_S
    earliest = now - BURST_S
    return (paid_at if paid_at > earliest else earliest) + (cost_s if cost_s > _MESSAGE_S else _MESSAGE_S)


def owed_s(paid_at: float, now: float) -> float:
    """The seconds for which nothing more may be read (0: go on)."""
    return max(0.0, paid_at - now)
