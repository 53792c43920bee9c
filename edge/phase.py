"""What a client's connection does at the moment."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """What this connection does now."""

    HEAD = enum.auto()  # Waits for a request, or for the rest of its head.
    ROUTE = enum.auto()  # Waits for Redis.
    DIAL = enum.auto()  # Waits for a new connection to the VM.
    EXCHANGE = enum.auto()  # Request and answer pass.
    TUNNEL = enum.auto()  # A WebSocket: bytes pass.
    LINGER = enum.auto()  # The last answer is sent; what still comes is thrown away.
    CLOSED = enum.auto()


# Python 3.11 takes 0.2 us to find a member by its class, and every request passes a dozen such places.
HEAD, ROUTE, DIAL, EXCHANGE, TUNNEL, LINGER, CLOSED = Phase
