"""What a socket tells, and asks, the one it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from api.gateway.handshake import Door

if TYPE_CHECKING:
    from api.gateway.websocket import AgentSocket


class Owner(Door, Protocol):
    """Who is told what a socket does. None of these may await."""

    def opened(self, socket: AgentSocket) -> None: ...

    def is_stranger(self, socket: AgentSocket) -> bool: ...  # Then it may say little.

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None: ...

    def closed(self, socket: AgentSocket) -> None: ...

    def failed(self, socket: AgentSocket, reason: str) -> None: ...
