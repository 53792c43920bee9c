"""One agent's socket: RFC 6455 on an asyncio.Protocol, plain frames by our own hand, the rest by `websockets`.

No task, queue or timer per agent; a timer for a connection that ends, and for one that sends too fast. Who sends much
at once waits for its turn (`Turns`), so that nobody's few bytes wait behind many others' many.

What nearly every agent sends all day, whole text frames and pings behind a plain upgrade, is taken and answered here:
an agent at rest costs its socket, its session and no parser. Whatever is not beyond doubt goes to the library's
Sans-I/O protocol (`Wire`), which exists only until the stream is plain again.

Stricter than the library where that is too kind: exactly one Host header that names a host, lengths in their shortest
form, reserved bits refused by the first byte of a frame; and no Origin (browsers have no business here), one path,
requests of at most 16 KiB. What is no HTTP at all is answered with 400, where the library hangs up. Who was not let in
yet may say no more than a HELLO needs. `GET /healthz` is for whoever supervises us.
"""

from __future__ import annotations

import asyncio
import enum
import os
import time
from typing import cast

from websockets import protocol as wire
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from agent.protocol import MAX_FRAME_BYTES, NONCE_BYTES, NONCE_HEADER
from api.gateway.frames import (
    STRANGER_BYTES,
    STRANGER_UNREAD_BYTES,
    WHOLE_PING,
    WHOLE_PONG,
    WHOLE_TEXT,
    BadHead,
    plain_frame,
    unmask,
    unmasked,
)
from api.gateway.handshake import acceptance, answer, plain_key
from api.gateway.meter import owed_s, spent
from api.gateway.owner import Owner
from api.gateway.turns import ROUND_BYTES, Turns
from api.gateway.wire import Wire

REPLACED = 4001  # Close codes of ours (RFC 6455 section 7.4.2: 4000 to 4999 are private).
REVOKED = 4003
GAP = 4009
DEAF = 1  # Reasons to stop reading (bits): it does not read what we send,
FULL = 2  # it has sent more than we have stored,
FAST = 4  # it sends more than its share,
TURN = 8  # it waits for its turn,
LEAVING = 16  # or the gateway ends.
AT_ONCE_BYTES = 8 * 1024  # More of one agent may have to wait for its turn: these are 0.1 ms of work.
TURN_BYTES = ROUND_BYTES  # A turn ends with the frame in which it has taken this much.
WRITE_LIMIT_BYTES = 8 * 1024  # An agent that does not read this much of what we sent is not read from either.
REST_S = 0.05  # Who sent too much rests a little longer than it must, and is then served several at once.
LINGER_S = 2.0  # For the agent to end its side after we ended ours; closing at once could destroy our last words.
REASON_LIMIT_BYTES = 123  # A close frame holds 125 bytes, two of them the code (RFC 6455 section 5.5).


class Stage(enum.Enum):
    NEW = enum.auto()  # Its request is not answered yet.
    OPEN = enum.auto()
    ENDING = enum.auto()  # Nothing more is taken from the agent.


class AgentSocket(asyncio.Protocol):
    """Bytes in, texts out. `slot` belongs to the owner."""

    __slots__ = (
        "_held",
        "_needs",
        "_owner",
        "_paid_at",
        "_pauses",
        "_stage",
        "_transport",
        "_turns",
        "_wire",
        "nonce",
        "peer",
        "slot",
    )

    def __init__(self, owner: Owner, turns: Turns) -> None:
        self._owner = owner
        self._turns = turns
        self._transport: asyncio.Transport | None = None
        self._wire: Wire | None = None
        self._stage = Stage.NEW
        self._pauses = 0
        self._paid_at = 0.0
        self._held: bytes | bytearray = b""  # Read and not taken: reading is paused, or a frame is not complete.
        self._needs = 0  # So much must be held before it can be taken.
        self.nonce = ""  # What this connection's HELLO is signed over; the owner clears it when it took the HELLO.
        self.peer = ""  # For logs; stays after the connection ended.
        self.slot: object = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # A stream server gives nothing else.
        self.peer = str(transport.get_extra_info("peername", ("",))[0])
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if not self._held and not self._pauses and (size <= AT_ONCE_BYTES or self._turns.grant(size)):
            self._read(data)
            return
        self._hold(data)
        if not self._pauses and len(self._held) >= self._needs:
            self._await_turn()

    def eof_received(self) -> None:
        """An agent that ends its side has said its last; between two frames there is nothing to answer."""
        if self._wire is None and (self._stage is Stage.NEW or self._held):
            self._give_up_waiting(Wire.of_request() if self._stage is Stage.NEW else self._wire_of_frames())
        if self._wire is not None:
            self._wire.protocol.receive_eof()
            self._flush(self._wire)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._stage, self._held, self._wire = None, Stage.ENDING, b"", None
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """Who does not read is not read from."""
        self.pause(DEAF)

    def resume_writing(self) -> None:
        self.resume(DEAF)

    # Called by the owner.

    def send(self, text: str) -> None:
        """Queue one message; a socket that is closing or closed swallows it, for the agent will be back."""
        if self._stage is Stage.OPEN:
            self._write(unmasked(WHOLE_TEXT, text.encode()))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; again or after the end: nothing. Nothing more is taken from the agent."""
        if self._stage is not Stage.OPEN:
            self.abort()
            return
        self._stage = Stage.ENDING
        by = self._wire = self._wire or self._wire_of_frames()
        self._needs = 0  # Of a frame that did not come whole the library keeps what came.
        by.protocol.send_close(code, reason.encode()[:REASON_LIMIT_BYTES].decode(errors="ignore"))
        self._flush(by)

    def abort(self) -> None:
        """End the connection now; unsent bytes are lost, and nothing more is taken from the agent."""
        self._stage = Stage.ENDING
        if self._transport is not None:
            self._transport.abort()

    def pause(self, reason: int) -> None:
        """Stop reading until every reason given is taken back; the kernel then slows the agent down."""
        if not self._pauses and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses |= reason

    def resume(self, reason: int) -> None:
        """Take back one reason; with the last of them what was read already is taken, then reading goes on."""
        was_paused, self._pauses = bool(self._pauses), self._pauses & ~reason
        if not was_paused or self._pauses:
            return
        if self._held and len(self._held) >= self._needs:
            self._await_turn()
        else:
            self._read_on()

    def is_paused_for(self, reason: int) -> bool:
        return bool(self._pauses & reason)

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # What was read.

    def _hold(self, data: bytes | memoryview) -> None:
        if self._held:
            self._held += data
        else:
            self._held = bytearray(data)

    def _await_turn(self) -> None:
        self.pause(TURN)
        self._turns.ask(self._take_turn)

    def _take_turn(self) -> None:
        """Take of what is held as much as one turn allows; whoever else paused us asks for the next one."""
        self._pauses &= ~TURN
        if self._pauses or self._transport is None:
            return
        held, self._held, self._needs = bytes(self._held), b"", 0
        try:
            self._read(held)
        except BaseException:
            self.abort()  # As the event loop does when `data_received` fails: bytes are lost, and nobody would read on.
            raise
        if not self._pauses:
            self._read_on()

    def _read(self, data: bytes) -> None:
        """Take frame by frame; what cannot be taken now is held."""
        at, size = 0, len(data)
        while at < size and at < TURN_BYTES and not self._needs:
            at = self._next(data, at)
            if self._transport is None:
                return
            if self._pauses:
                break
        if size - at > STRANGER_UNREAD_BYTES and self._stage is not Stage.NEW and self._owner.is_stranger(self):
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too much before WELCOME")
        elif at < size:
            self._hold(memoryview(data)[at:])
            if not self._pauses and not self._needs:
                self._await_turn()

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # What stands next in the stream.

    def _next(self, data: bytes, at: int) -> int:
        """Take the request, frame or piece of them that begins at `at`; where the next begins.

        A plain frame that is not complete stays: `_needs` then says how much it is.
        """
        if self._wire is None:
            taken = self._take_frame(data, at) if self._stage is Stage.OPEN else self._take_request(data, at)
            if taken or self._needs:
                return taken or at
            if self._stage is Stage.ENDING:
                return len(data)
            self._wire = self._wire_of_frames() if self._stage is Stage.OPEN else Wire.of_request()
        return self._take_piece(self._wire, data, at)

    def _take_frame(self, data: bytes, at: int) -> int:
        """The end of a plain frame; 0 for every other and for one that is not complete: nothing was taken."""
        frame = plain_frame(data, at)
        if frame is None:
            return 0
        first, body, end = frame
        if end - body > STRANGER_BYTES and self._owner.is_stranger(self):
            return 0
        if end > len(data):
            self._needs = end - at
            return 0
        payload = unmask(data, body, end)
        self._charge(len(payload))
        if first == WHOLE_TEXT:
            self._deliver(payload)
        elif first == WHOLE_PING:
            self._write(unmasked(WHOLE_PONG, payload))
        return end

    def _take_request(self, data: bytes, at: int) -> int:
        """The end of a plain request; 0 for every other, of which nothing was taken."""
        found = None if at or self._stage is not Stage.NEW or self._owner.is_crowded() else plain_key(data)
        if found is None:
            return 0
        key, end = found
        self._write(acceptance(key, self._open()))
        return end

    def _open(self) -> str:
        self._stage, self.nonce = Stage.OPEN, os.urandom(NONCE_BYTES).hex()
        return self.nonce

    # By the library.

    def _wire_of_frames(self) -> Wire:
        return Wire.of_frames(STRANGER_BYTES if self._owner.is_stranger(self) else MAX_FRAME_BYTES)

    def _give_up_waiting(self, by: Wire) -> None:
        """What is held will not become complete."""
        self._wire, held, self._held, self._needs = by, bytes(self._held), b"", 0
        if held:
            self._take_piece(by, held, 0)

    def _take_piece(self, by: Wire, data: bytes, at: int) -> int:
        if by.protocol.eof_sent:
            return len(data)  # What comes behind the end is thrown away.
        try:
            end = by.ends.after(data, at)
        except BadHead as error:
            self._fail(error.code, str(error))
            return len(data)
        by.protocol.receive_data(data[at:end])
        for event in by.protocol.events_received():
            if isinstance(event, Request):
                self._answer(by, event)
            elif self._stage is Stage.OPEN:
                self._take(by, cast("Frame", event))  # cast: after the request a server protocol yields frames only.
        by.refuse_endless()
        failure = by.protocol.parser_exc
        if failure is not None and self._stage is Stage.OPEN:
            self._owner.failed(self, str(failure))
        self._flush(by)
        if self._wire is by and by.is_plain_again:
            self._wire = None
        return end

    def _answer(self, by: Wire, request: Request) -> None:
        handshake = cast("ServerProtocol", by.protocol)  # cast: no other protocol yields a request.
        response = answer(handshake, request, self._owner)
        if response.status_code == 101:
            response.headers[NONCE_HEADER] = self._open()
        handshake.send_response(response)
        self._flush(by)
        if response.status_code == 101:
            self._wire = None

    def _take(self, by: Wire, frame: Frame) -> None:
        self._charge(len(frame.data))
        if frame.opcode is Opcode.BINARY:
            self._fail(CloseCode.UNSUPPORTED_DATA, "text frames only")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            by.text += frame.data
            if frame.fin:
                whole, by.text = by.text, bytearray()
                self._deliver(whole)

    def _flush(self, by: Wire) -> None:
        if by.protocol.state is not wire.State.OPEN and self._stage is Stage.OPEN:
            self._stage = Stage.ENDING
        for data in by.protocol.data_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            else:
                self._end(self._transport, by)  # The library's sign for the end; what was written still goes out.

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Close for what must not come; nothing more is taken from the agent."""
        by = self._wire = self._wire or self._wire_of_frames()
        if self._stage is Stage.OPEN:
            self._owner.failed(self, reason)
        by.protocol.fail(code, reason)
        self._flush(by)

    def _end(self, transport: asyncio.Transport, by: Wire) -> None:
        """Send nothing more, and read until the agent ends its side too.

        A socket closed over bytes that nobody read is reset, and a reset overtakes the close frame or the refusal.
        """
        self._stage = Stage.ENDING
        handshake = by.protocol
        if isinstance(handshake, ServerProtocol) and isinstance(handshake.handshake_exc, InvalidMessage):
            transport.write(handshake.reject(400, "This is no HTTP/1.1 request without a body.\n").serialize())
        if by.protocol.state is wire.State.CLOSED:  # The agent ended its side first.
            transport.close()
            return
        transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    # Both.

    def _charge(self, size_bytes: int) -> None:
        """Who has sent its share is not read from until the share has grown again: no error, the kernel slows it."""
        now = time.monotonic()
        self._paid_at = spent(self._paid_at, now, size_bytes)
        if self._paid_at > now and not self._pauses & FAST:
            self.pause(FAST)
            asyncio.get_running_loop().call_later(owed_s(self._paid_at, now) + REST_S, self._rested)

    def _rested(self) -> None:
        left_s = owed_s(self._paid_at, time.monotonic())
        if left_s:
            asyncio.get_running_loop().call_later(left_s + REST_S, self._rested)
            return
        self.resume(FAST)

    def _deliver(self, raw: bytes | bytearray) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
            return
        self._owner.received(self, text, len(raw))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
