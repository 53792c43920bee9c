"""One agent's socket: RFC 6455 by `websockets`' Sans-I/O protocol on an asyncio.Protocol. No task, queue or timer.

Stricter than the library where gateway.md (section 6) found it too kind: exactly one Host header, no Origin
(browsers have no business here), one path. `GET /healthz` is answered for whoever supervises this process.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from agent.protocol import CONNECT_PATH, MAX_FRAME_BYTES

REPLACED = 4001  # Close codes of ours (RFC 6455 section 7.4.2: 4000 to 4999 are private).
REVOKED = 4003
GAP = 4009
DEAF = 1  # Reasons to stop reading (bits): it does not read what we send,
FULL = 2  # or it has sent more than we have stored.
WRITE_LIMIT_BYTES = 1024 * 1024  # An agent that does not read this much of what we sent is not read from either.


class Owner(Protocol):
    """Who is told what a socket does. None of these may await."""

    def opened(self, socket: AgentSocket) -> None: ...

    def received(self, socket: AgentSocket, text: str) -> None: ...

    def closed(self, socket: AgentSocket) -> None: ...

    def is_healthy(self) -> bool: ...


class AgentSocket(asyncio.Protocol):
    """Bytes in, texts out. `slot` belongs to the owner."""

    __slots__ = ("_is_open", "_owner", "_parts", "_pauses", "_protocol", "_transport", "peer", "slot")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._protocol = ServerProtocol(max_size=MAX_FRAME_BYTES)
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._is_open = False
        self._pauses = 0
        self.peer = ""  # For logs; stays after the connection ended.
        self.slot: object = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # A stream server gives nothing else.
        self.peer = str(transport.get_extra_info("peername", ("",))[0])
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif self._is_open:
                self._take(cast("Frame", event))  # cast: after the request a server protocol yields frames only.
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._is_open = None, False
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """Who does not read is not read from."""
        self.pause(DEAF)

    def resume_writing(self) -> None:
        self.resume(DEAF)

    # Called by the owner.

    def send(self, text: str) -> None:
        """Queue one message; a socket that is closing or closed swallows it, for the agent will be back."""
        if not self._is_open:
            return
        try:
            self._protocol.send_text(text.encode())
        except InvalidState:
            return
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; again or after the end: nothing. Nothing more is taken from the agent."""
        if not self._is_open:
            self.abort()
            return
        self._is_open = False
        try:
            self._protocol.send_close(code, reason[:120])  # A close frame holds 125 bytes (RFC 6455 section 5.5).
        except InvalidState:
            return
        self._flush()

    def abort(self) -> None:
        """End the connection now; unsent bytes are lost."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self, reason: int) -> None:
        """Stop reading until every reason given is taken back; the kernel then slows the agent down."""
        if not self._pauses and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses |= reason

    def resume(self, reason: int) -> None:
        """Take back one reason."""
        was_paused, self._pauses = bool(self._pauses), self._pauses & ~reason
        if was_paused and not self._pauses and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _answer(self, request: Request) -> None:
        refusal = self._refusal(request)
        response = refusal or self._protocol.accept(request)
        self._protocol.send_response(response)
        self._is_open = response.status_code == 101

    def _refusal(self, request: Request) -> Response | None:
        path = request.path.split("?", 1)[0]
        headers = request.headers
        if path == "/healthz":
            is_healthy = self._owner.is_healthy()
            return self._protocol.reject(200, "ok\n") if is_healthy else self._protocol.reject(503, "failed\n")
        if path != CONNECT_PATH:
            return self._protocol.reject(404, f"Agents connect to {CONNECT_PATH}.\n")
        if len(headers.get_all("Host")) != 1:
            return self._protocol.reject(400, "Exactly one Host header is needed.\n")
        if "Origin" in headers:
            return self._protocol.reject(403, "This address is for agents, not for browsers: no Origin, please.\n")
        return None

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "text frames only")
            self._is_open = False
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                self._deliver(b"".join(self._parts))

    def _deliver(self, raw: bytes) -> None:
        self._parts.clear()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "not UTF-8")
            self._is_open = False
            return
        self._owner.received(self, text)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            else:
                transport.close()  # The library's sign for the end; what was written before still goes out.
