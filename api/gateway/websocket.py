"""One agent's socket: RFC 6455 by `websockets`' Sans-I/O protocol on an asyncio.Protocol.

No task, queue or timer per agent; a timer for a connection that ends, and for one that sends too fast.

Stricter than the library where that is too kind: exactly one Host header that names a host, lengths in their shortest
form, reserved bits refused by the first byte of a frame; and no Origin (browsers have no business here), one path.
What is no HTTP at all is answered with 400, where the library hangs up. `GET /healthz` is for whoever supervises us.

The library is given one request or frame at a time: what is answered never depends on how the network cut the stream.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Protocol, cast

from websockets import protocol as wire
from websockets.exceptions import InvalidMessage, InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from agent.protocol import CONNECT_PATH, MAX_FRAME_BYTES
from api.gateway.meter import Meter

REPLACED = 4001  # Close codes of ours (RFC 6455 section 7.4.2: 4000 to 4999 are private).
REVOKED = 4003
GAP = 4009
DEAF = 1  # Reasons to stop reading (bits): it does not read what we send,
FULL = 2  # it has sent more than we have stored,
FAST = 4  # or it sends more than its share.
WRITE_LIMIT_BYTES = 32 * 1024  # An agent that does not read this much of what we sent is not read from either.
CROWDED_RETRY_S = "5"  # By then the queue of a herd is served; agents spread their next dials themselves.
LINGER_S = 2.0  # For the agent to end its side after we ended ours; closing at once could destroy our last words.
MAX_HEAD_BYTES = 10  # Of a frame, without its mask.
MASK_BYTES = 4
REASON_LIMIT_BYTES = 123  # A close frame holds 125 bytes, two of them the code (RFC 6455 section 5.5).

_LOGGER = logging.getLogger("websockets.server")  # One for all: the library makes one for each connection.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{0,5})?")


class Owner(Protocol):
    """Who is told what a socket does. None of these may await."""

    def opened(self, socket: AgentSocket) -> None: ...

    def received(self, socket: AgentSocket, text: str) -> None: ...

    def closed(self, socket: AgentSocket) -> None: ...

    def is_healthy(self) -> bool: ...

    def is_crowded(self) -> bool: ...


class AgentSocket(asyncio.Protocol):
    """Bytes in, texts out. `slot` belongs to the owner."""

    __slots__ = (
        "_ends",
        "_held",
        "_is_open",
        "_meter",
        "_owner",
        "_pauses",
        "_protocol",
        "_text",
        "_transport",
        "peer",
        "slot",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # Limits per frame only: the library counts a ping between fragments as part of their message. See _FrameEnds.
        self._protocol: wire.Protocol = ServerProtocol(max_size=(None, MAX_FRAME_BYTES), logger=_LOGGER)
        self._transport: asyncio.Transport | None = None
        self._ends: _RequestEnd | _FrameEnds = _RequestEnd()
        self._text = bytearray()  # Of the fragments so far; not a list, for fragments may be empty and endless.
        self._is_open = False
        self._pauses = 0
        self._meter = Meter()
        self._held = b""  # What was read already when it had sent its share.
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
        at = 0
        while at < len(data) and not self._protocol.eof_sent:  # What comes behind the end is thrown away.
            if self._pauses & FAST:
                self._held += data[at:]
                break
            try:
                end = self._ends.after(data, at)
            except _BadHead as error:
                self._protocol.fail(error.code, str(error))
                break
            self._feed(data[at:end])
            at = end
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._is_open, self._held = None, False, b""
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
            self._protocol.send_close(code, reason.encode()[:REASON_LIMIT_BYTES].decode(errors="ignore"))
        except InvalidState:
            return
        self._flush()

    def abort(self) -> None:
        """End the connection now; unsent bytes are lost, and nothing more is taken from the agent."""
        self._is_open = False
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

    def _feed(self, piece: bytes) -> None:
        self._protocol.receive_data(piece)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif self._is_open:
                self._take(cast("Frame", event))  # cast: after the request a server protocol yields frames only.

    def _answer(self, request: Request) -> None:
        handshake = cast("ServerProtocol", self._protocol)  # cast: no other protocol yields a request.
        response = self._refusal(handshake, request) or _accepted(handshake, request)
        handshake.send_response(response)
        self._ends = _FrameEnds()
        if response.status_code == 101:
            self._flush()
            # A new one, without the request and what the handshake needed: half of what an idle agent costs.
            self._protocol = wire.Protocol(wire.Side.SERVER, max_size=(None, MAX_FRAME_BYTES), logger=_LOGGER)
            self._is_open = True

    def _refusal(self, handshake: ServerProtocol, request: Request) -> Response | None:
        path = request.path.split("?", 1)[0]
        hosts = request.headers.get_all("Host")
        if path == "/healthz":
            is_healthy = self._owner.is_healthy()
            return handshake.reject(200, "ok\n") if is_healthy else handshake.reject(503, "failed\n")
        if path != CONNECT_PATH:
            return handshake.reject(404, f"Agents connect to {CONNECT_PATH}.\n")
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            return handshake.reject(400, "Exactly one Host header with the name of a host is needed.\n")
        if self._owner.is_crowded():
            crowded = handshake.reject(503, "Too many agents come at once. Try again in a moment.\n")
            crowded.headers["Retry-After"] = CROWDED_RETRY_S
            return crowded
        if "Origin" in request.headers:
            return handshake.reject(403, "This address is for agents, not for browsers: no Origin, please.\n")
        return None

    def _take(self, frame: Frame) -> None:
        self._charge(len(frame.data))
        if frame.opcode is Opcode.BINARY:
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "text frames only")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            if frame.fin and not self._text:
                self._deliver(bytes(frame.data))
                return
            self._text += frame.data
            if frame.fin:
                whole, self._text = self._text, bytearray()
                self._deliver(whole)

    def _charge(self, size_bytes: int) -> None:
        """Who has sent its share is not read from until the share has grown again: no error, the kernel slows it."""
        owed_s = self._meter.spend(time.monotonic(), size_bytes)
        if owed_s and not self._pauses & FAST:
            self.pause(FAST)
            asyncio.get_running_loop().call_later(owed_s, self._read_on)

    def _read_on(self) -> None:
        owed_s = self._meter.owed(time.monotonic())
        if owed_s:
            asyncio.get_running_loop().call_later(owed_s, self._read_on)
            return
        self.resume(FAST)
        held, self._held = self._held, b""
        if held:
            self.data_received(held)  # Before what is read from now on: that comes in a later turn of the loop.

    def _deliver(self, raw: bytes | bytearray) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "not UTF-8")
            return
        self._owner.received(self, text)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._end(self._transport)  # The library's sign for the end; what was written before still goes out.

    def _end(self, transport: asyncio.Transport) -> None:
        """Send nothing more, and read until the agent ends its side too.

        A socket closed over bytes that nobody read is reset, and a reset overtakes the close frame or the refusal.
        """
        self._is_open = False
        handshake = self._protocol
        if isinstance(handshake, ServerProtocol) and isinstance(handshake.handshake_exc, InvalidMessage):
            transport.write(handshake.reject(400, "This is no HTTP/1.1 request without a body.\n").serialize())
        if self._protocol.state is wire.State.CLOSED:  # The agent ended its side first.
            transport.close()
            return
        transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self.abort)


def _accepted(handshake: ServerProtocol, request: Request) -> Response:
    response = handshake.accept(request)
    if response.status_code != 101:
        response.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 section 4.2.2: say which version would do.
    return response


class _BadHead(Exception):
    """The head of a frame that must not come."""

    def __init__(self, text: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


class _RequestEnd:
    """Where the handshake's request ends: behind the first empty line.

    Frames that follow it at once must wait for our answer: the library would answer them before the request.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = b""

    def after(self, data: bytes, start: int) -> int:
        """The end of the piece of `data` that begins at `start`."""
        joined = self._seen + data[start:]
        found = joined.find(b"\r\n\r\n")
        end = start + found + 4 - len(self._seen) if found >= 0 else len(data)
        self._seen = joined[-3:]
        return end


class _FrameEnds:
    """Where each frame ends, and how large its message grew, from the heads alone."""

    __slots__ = ("_head", "_left", "_message_bytes")

    def __init__(self) -> None:
        self._head = b""  # What came of a head that is not complete.
        self._left = 0  # Bytes of the frame behind its head that did not come yet.
        self._message_bytes = 0  # In the fragments of a message that is not finished.

    def after(self, data: bytes, start: int) -> int:
        """The end of the piece of `data` that begins at `start`; a piece never holds bytes of two frames.

        Raises:
            _BadHead: reserved bits, no mask, a length that is not in its shortest form, or a message that is too large.
        """
        if not self._left:
            start = self._read_head(data, start)
        end = min(start + self._left, len(data))
        self._left -= end - start
        return end

    def _read_head(self, data: bytes, start: int) -> int:
        head = self._head + data[start : start + MAX_HEAD_BYTES - len(self._head)]
        size, length = _measure(head)
        if not size:
            self._head = head
            return len(data)
        self._count(head[0], length)
        start += size - len(self._head)
        self._head, self._left = b"", MASK_BYTES + length
        return start

    def _count(self, first_byte: int, length: int) -> None:
        if first_byte & 0x0F > Opcode.BINARY:
            return  # A control frame, or what the library will refuse.
        message_bytes = self._message_bytes + length
        if message_bytes > MAX_FRAME_BYTES:
            raise _BadHead(f"a message has at most {MAX_FRAME_BYTES} bytes", CloseCode.MESSAGE_TOO_BIG)
        self._message_bytes = 0 if first_byte & 0x80 else message_bytes


def _measure(head: bytes) -> tuple[int, int]:
    """Bytes of this head without its mask, and of the payload; (0, 0) when it is not complete. Raises _BadHead.

    Source: RFC 6455 section 5.2.
    """
    if head[0] & 0x70:
        raise _BadHead("reserved bits must be 0")
    if len(head) < 2:
        return 0, 0
    if not head[1] & 0x80:
        raise _BadHead("frames must be masked")
    length = head[1] & 0x7F
    if length < 126:
        return 2, length
    size, least = (4, 126) if length == 126 else (10, 65536)
    if len(head) < size:
        return 0, 0
    length = int.from_bytes(head[2:size])
    if length < least:
        raise _BadHead("a length must have its shortest form")
    return size, length
