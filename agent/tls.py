"""The server's end of TLS under a protocol that knows nothing of it.

asyncio's own TLS ends both directions when one does. Here each ends by itself, as it does in TCP: a `close_notify` is
the end of one direction (RFC 8446 section 6.1), and an end of TCP without one is a connection that was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from typing import cast

HANDSHAKE_TIMEOUT_S = 10.0  # One round trip; who needs longer holds a connection for nothing.
_READ_BYTES = 64 * 1024


class TlsServer(asyncio.Protocol, asyncio.Transport):
    """One connection: to the socket it is the protocol, to `inner` the transport, once the handshake is done.

    A peer that does not speak TLS is cut off, and `inner` never hears of it.
    """

    def __init__(
        self, context: ssl.SSLContext, inner: asyncio.Protocol, handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    ) -> None:
        super().__init__()
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._handshake_timeout_s = handshake_timeout_s
        self._socket: asyncio.Transport
        self._limit: asyncio.TimerHandle | None = None
        self._is_open = False  # The handshake is done and `inner` has not lost the connection.
        self._is_held = False
        self._ahead: deque[bytes] = deque()  # Deciphered before `inner` took it; at most what one read brings.
        self._has_read_all = False
        self._has_written_all = False
        self._was_cut = False

    # What the socket says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)  # cast: socket transports are read-write ones.
        self._limit = asyncio.get_running_loop().call_later(self._handshake_timeout_s, self._socket.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._is_open and not self._greet():
                return
            self._read()
        except ssl.SSLError:
            self._send()  # The alert that says why.
            self._cut()

    def eof_received(self) -> bool:
        if not self._has_read_all:
            self._cut()
            return False
        return True

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        if self._is_open:
            self._is_open = False
            self._inner.connection_lost(error or (ConnectionResetError("cut off") if self._was_cut else None))

    # What the inner protocol asks for.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_written_all or self._socket.is_closing():
            return
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._send()

    def write_eof(self) -> None:
        """End this direction; the other one goes on."""
        if self._has_written_all or self._socket.is_closing():
            return
        self._has_written_all = True
        with contextlib.suppress(ssl.SSLError):  # It looks for the other direction's end, too; we need not wait.
            self._read_ahead()
            self._tls.unwrap()
        self._send()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """End both directions once everything is written."""
        self.write_eof()
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        self._is_held = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._is_held = False
        try:
            self._read()
        except ssl.SSLError:
            self._cut()
        if not self._is_held and not self._socket.is_closing():
            self._socket.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._socket.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    # Between the two.

    def _greet(self) -> bool:
        """Whether the handshake is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        self._send()
        assert self._limit is not None
        self._limit.cancel()
        self._is_open = True
        self._inner.connection_made(self)
        return True

    def _read(self) -> None:
        """Hand on what has arrived, until `inner` takes no more."""
        while not (self._is_held or self._has_read_all or self._socket.is_closing()):
            try:
                data = self._ahead.popleft() if self._ahead else self._decipher()
            except ssl.SSLWantReadError:
                break
            if data:
                self._inner.data_received(data)
            else:
                self._has_read_all = True
                if not self._inner.eof_received():
                    self.close()
        self._send()  # What TLS itself answers, to a change of keys for one.

    def _read_ahead(self) -> None:
        """Leave no data for `unwrap`, which ends both directions when it finds any where it looks for an end."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self._decipher():
                self._ahead.append(data)

    def _decipher(self) -> bytes:
        """b"" behind the peer's close_notify. Raises SSLWantReadError, and SSLError for what is no TLS."""
        try:
            return self._tls.read(_READ_BYTES)
        except ssl.SSLZeroReturnError:
            return b""

    def _send(self) -> None:
        if self._outgoing.pending:
            self._socket.write(self._outgoing.read())

    def _cut(self) -> None:
        self._was_cut = True
        self._socket.abort()
