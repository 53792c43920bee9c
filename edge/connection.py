"""A visitor's TCP or TLS connection: who it comes from, whether bytes are read from it, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from edge import pages
from edge.headers import client_fields
from edge.phase import CLOSED, HEAD, LINGER

if TYPE_CHECKING:
    from edge.proxy import Edge

_TLS_READ = 65536  # Of a read that is held in cipher, in clear and on its way; also what a round trip brings.
_TUNNEL_READ = 32768
_TLS_HELD_MAX = 16384  # As without TLS; the event loop's own bound is eight times that.


class Connection(asyncio.Protocol):
    """What every phase of a client needs of its connection.

    takes_small_pieces: what is written at once should be small. write_blocked: the visitor takes no more for now.
    deadline: by the edge's clock, when this phase has lasted too long.
    """

    __slots__ = (
        "_address", "_buffer", "_edge", "_fields", "_half_closed", "_is_held", "_phase", "_reads_small", "_sni",
        "_transport", "deadline", "takes_small_pieces", "write_blocked",
    )  # fmt: skip
    _transport: asyncio.Transport

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._phase = HEAD
        self._buffer = b""
        self._sni: bytes | None = None  # The host of the TLS handshake, b"" when it named none; None without TLS.
        self._half_closed = False
        self._is_held = False  # Nothing is read from it for now.
        self._reads_small = False
        self.takes_small_pieces = False
        self.write_blocked = False
        self.deadline = edge.clock() + edge.limits.head_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop calls this with the transport of a stream socket; the base class only knows BaseTransport.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]).partition("%")[0] if peer else "127.0.0.1"
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._sni = (tls.sni or "").lower().encode()
            self._bound_buffers()
        self._fields = client_fields(self._address, "http" if tls is None else "https")

    def read_small(self) -> None:
        """Bound what one read brings: where this side or the VM's speaks TLS it is held in clear and in cipher."""
        if not self._reads_small:
            self._reads_small = True
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TLS_READ)

    def read_little(self) -> None:
        """In a tunnel to a VM by TLS both directions may be full, each held in clear and in cipher."""
        self._reads_small = True
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TUNNEL_READ)

    def _bound_buffers(self) -> None:
        self.takes_small_pieces = True
        self.read_small()
        self._transport.set_write_buffer_limits(_TLS_HELD_MAX)
        # Both event loops' TLS transports have it; the common base class does not.
        self._transport.set_read_buffer_limits(_TLS_HELD_MAX)  # type: ignore[attr-defined]

    def _turn_away(self) -> None:
        """The visitor's address has too many connections; this one was not admitted."""
        self._phase = CLOSED
        self._edge.metrics.pages["too_many_connections"] += 1
        page = pages.too_many_connections()
        self._transport.write(pages.answer_bytes(page, as_json=False, without_body=False, closes=True))
        self._transport.close()

    def hold(self) -> None:
        """Read nothing for now."""
        if not self._transport.is_closing():
            self._is_held = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        """End what `hold` began, unless too much was sent ahead or no more can come."""
        if self._half_closed or self._transport.is_closing() or len(self._buffer) > self._edge.limits.hold_bytes:
            return
        self._is_held = False
        self._transport.resume_reading()

    def _end(self, *, at_once: bool) -> None:
        """Close after the last answer; first read on for a moment when the visitor may still be sending."""
        if self._transport.is_closing():
            self._phase = CLOSED
            return
        if at_once or self._half_closed or not self._transport.can_write_eof():
            self._phase = CLOSED
            self.deadline = self._edge.clock() + self._edge.limits.stall_s
            self._transport.close()  # By TLS this reads on until the visitor closes too, for `linger_s` at most.
            return
        self._phase = LINGER
        self._buffer = b""
        self.deadline = self._edge.clock() + self._edge.limits.linger_s
        self._transport.write_eof()
        self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()
