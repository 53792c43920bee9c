"""Two halves of a relayed connection: bytes both ways, with back-pressure and half-close."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

_RESET = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: close with RST. FIN would say that all was said.
BUFFER_BYTES = 256 * 1024  # Per direction; more only delays the moment at which the sender learns to wait.


class Half(asyncio.Protocol):
    """One side of a connection: hands what it reads to `peer`, and lets it wait while its own buffer is full."""

    def __init__(self, peer: Half | None = None) -> None:
        self.peer = peer
        self.transport: asyncio.Transport | None = None
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # cast: socket transports are read-write ones.
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        if self.peer is not None:
            self.peer.join(self)

    def join(self, peer: Half) -> None:
        self.peer = peer
        if self.transport is None or self.transport.is_closing():
            peer.abort()
        else:
            self.transport.resume_reading()

    def data_received(self, chunk: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(chunk)

    def eof_received(self) -> bool:
        """The other end has said all; what comes back may still take long: keep this half open."""
        self.has_ended = True
        if self.peer is None or self.peer.transport is None:
            return False
        if self.peer.has_ended:
            self.peer.transport.close()
            return False
        if not self.peer.transport.is_closing():
            self.peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is None or self.peer.transport is None:
            return
        if error is None:
            self.peer.transport.close()
        else:
            self.peer.abort()

    def abort(self) -> None:
        """Break off, visibly: half of what was to be said must not look like all of it."""
        if self.transport is None:
            return
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class Visitor(Half):
    """The half that came in: it reads nothing until the half that `lead_in` opens for it has joined."""

    def __init__(self, lead_in: Callable[[Visitor], None]) -> None:
        super().__init__()
        self._lead_in = lead_in

    @property
    def is_gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._lead_in(self)
