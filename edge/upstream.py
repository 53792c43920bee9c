"""One connection to a VM's ingress: reads the answer, checks it, and hands it to the client that asked."""

from __future__ import annotations

import asyncio
import base64
import enum
import hashlib
import select
import socket
from typing import TYPE_CHECKING, cast

from edge import plain
from edge.chunks import LAST_CHUNK, BadChunk, ChunkReader, as_chunk
from edge.head import CHUNKED, BadResponse, Request, Response, read_response, websocket_accept, websocket_key
from edge.headers import ALWAYS, BODYLESS, CONTINUE, interim_bytes, response_bytes, switching_bytes
from edge.memo import Memo
from edge.plain import HEAD_MAX
from edge.pool import Pool
from edge.trust import is_cut

if TYPE_CHECKING:
    from edge.client import Client

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3.
_SMALL_READ = 65536  # Doubled by the kernel: 128 MB/s at a millisecond's distance, and VMs are in the same region.
_TUNNEL_READ = 16384  # By TLS, for both directions of a tunnel may be full: 32 MB/s at that distance.
_TLS_HELD_MAX = 16384  # The event loop's own bound is 32 times that.
_INTERIM_MAX = 8  # 1xx answers before the real one; more is an origin that never answers.


class State(enum.Enum):
    """What the next bytes of this connection are."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    UNTIL_CLOSE = enum.auto()
    TUNNEL = enum.auto()
    CLOSED = enum.auto()


# As in edge.client: finding a member by its class is slow.
_IDLE, _HEAD, _LENGTH, _CHUNKS, _UNTIL_CLOSE, _TUNNEL, _CLOSED = State
_responses = Memo(read_response)


class Upstream(asyncio.Protocol):
    """Carries one exchange at a time."""

    __slots__ = (
        "_buffer", "_chunks", "_client", "_has_ended", "_interim", "_is_held", "_is_tls", "_left", "_poll",
        "_reads_small", "_request", "_reusable", "_state", "_transport", "_wraps", "epoch", "idle_since", "is_reused",
        "pool", "write_blocked",
    )  # fmt: skip
    _transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.epoch = pool.epoch
        self._client: Client | None = None
        self._request: Request | None = None
        self._state = _IDLE
        self._buffer = b""
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._wraps = False
        self._reusable = False
        self._interim = 0
        self._is_held = False  # Nothing is read from it for now.
        self._poll = select.poll()
        self._reads_small = False
        self.idle_since = 0.0
        self.is_reused = False
        self.write_blocked = False

    # What client and pool do with it.

    def begin(self, client: Client, request: Request, data: bytes) -> None:
        """Send a request's head, and its body if that is complete; the answer goes to `client`."""
        self._client = client
        self._request = request
        self._state = _HEAD
        self._interim = 0
        self._transport.write(data)
        if client.takes_small_pieces and not self._reads_small:
            self._read_small()
        if self._is_tls:
            client.read_small()
        if client.write_blocked:
            self.hold()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def end_writing(self) -> None:
        """The client's side of a tunnel ended."""
        if self.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS has no half-closed connection here: what was sent before still arrives.

    def is_closing(self) -> bool:
        return self._state is _CLOSED or self._transport.is_closing()

    def has_unread(self) -> bool:
        """Whether bytes lie in the socket that the event loop has not delivered yet, or its end.

        To be asked before another request is sent: what lies there was not meant as its answer.
        """
        return bool(self._poll.poll(0))

    def close(self) -> None:
        self._state = _CLOSED
        self._transport.close()

    def abandon(self) -> None:
        """The client is gone, or the exchange failed: nothing of it may reach another one."""
        end = self._transport.close if self._state is _TUNNEL else self._transport.abort
        self._client = None
        self._state = _CLOSED
        end()

    def hold(self) -> None:
        """The client takes no more for now."""
        if not self.is_closing():
            self._is_held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._is_held and not self.is_closing():
            self._is_held = False
            self._transport.resume_reading()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop calls this with the transport of a stream socket; the base class only knows BaseTransport.
        self._transport = cast(asyncio.Transport, transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        self._has_ended = not self._is_tls  # By TLS the end of the connection is one only if TLS itself says so.
        if self._is_tls:
            self._bound_buffers()

    def _read_small(self, at_most: int = _SMALL_READ) -> None:
        """A large read is held in clear and in cipher where either side speaks TLS: bound what one read brings."""
        self._reads_small = True
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, at_most)

    def _bound_buffers(self) -> None:
        self._read_small()
        self._transport.set_write_buffer_limits(_TLS_HELD_MAX)
        # Both event loops' TLS transports have it; the common base class does not.
        self._transport.set_read_buffer_limits(_TLS_HELD_MAX)  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        self.write_blocked = True
        if self._client is not None:
            self._client.hold()

    def resume_writing(self) -> None:
        self.write_blocked = False
        if self._client is not None:
            self._client.go_on()

    def data_received(self, data: bytes) -> None:
        state = self._state
        client = self._client
        if client is None:
            self.close()  # Bytes nobody asked for: they must not become the answer to the next request.
        elif state is _HEAD:
            if self._buffer:
                data = self._buffer + data
            elif (answer := plain.answer(data, ALWAYS)) is not None and self._may_pass_on(client):
                self._pass_on(client, *answer)
                return
            self._read_heads(client, data)
        elif state is _LENGTH:
            self._read_length(client, b"", data)
        elif state is _CHUNKS:
            self._read_chunks(client, b"", data)
        elif state is _UNTIL_CLOSE:
            client.relay(as_chunk(data) if self._wraps else data)
        elif state is _TUNNEL:
            client.relay(data)

    def eof_received(self) -> bool:
        if self._state is _TUNNEL and self._client is not None:
            return self._client.end_writing() and self._transport.can_write_eof()
        if self._is_tls:
            self._has_ended = not is_cut(self._transport)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        state, client = self._state, self._client
        self._state, self._client = _CLOSED, None
        self.pool.forget(self)
        if client is None:
            return
        if state is _UNTIL_CLOSE and exc is None and self._has_ended:
            if self._wraps:
                client.relay(LAST_CHUNK)
            client.finish()
        elif state is _TUNNEL:
            client.tunnel_closed()
        elif state is _HEAD and not self._buffer and not self._interim:
            client.lost_unanswered(was_reused=self.is_reused)
        else:
            client.fail(502, "the preview closed the connection in the middle of its answer")

    # Heads.

    def _read_heads(self, client: Client, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n", 0, HEAD_MAX + 4)
            if end < 0:
                self._buffer = data
                if len(data) > HEAD_MAX:
                    self._refuse(client, f"the head of the answer is longer than {HEAD_MAX} bytes")
                return
            try:
                response = _responses[data[: end + 2]]
            except BadResponse as bad:
                self._refuse(client, str(bad))
                return
            data = data[end + 4 :]
            self._buffer = b""
            if response.status >= 200:
                self._begin_body(client, response, data)
                return
            if not self._take_interim(client, response, data):
                return

    def _may_pass_on(self, client: Client) -> bool:
        """Whether a plain answer, here to its last byte, ends the exchange and nothing else."""
        request = self._request
        assert request is not None
        return not (self.write_blocked or self._is_held) and request.method != b"HEAD" and client.stays_open()

    def _pass_on(self, client: Client, status: int, data: bytes) -> None:
        """What `_begin_body` and `_complete` come to for a plain answer."""
        self._state = _IDLE
        self._client = self._request = None
        self.is_reused = True
        self.pool.put(self)
        client.answer_whole(status, data)

    def _refuse(self, client: Client, reason: str) -> None:
        self.abandon()
        client.fail(502, reason)

    def _take_interim(self, client: Client, response: Response, rest: bytes) -> bool:
        """Pass on a 1xx answer. False when nothing more is to be read as a head."""
        assert self._request is not None
        self._interim += 1
        if response.status == 101:
            self._switch(client, response, rest)
            return False
        if self._interim > _INTERIM_MAX:
            self._refuse(client, f"more than {_INTERIM_MAX} interim answers")
            return False
        if self._request.minor == 1:  # RFC 9110 section 15.2: an HTTP/1.0 client never gets one.
            client.relay(CONTINUE if response.status == 100 else interim_bytes(response))
        return True

    def _switch(self, client: Client, response: Response, rest: bytes) -> None:
        """Become a tunnel, only for a client that asked and an origin that proves it understood (RFC 6455, 4.1)."""
        assert self._request is not None
        key = websocket_key(self._request.fields)
        accept = base64.b64encode(hashlib.sha1((key or b"") + _WEBSOCKET_GUID, usedforsecurity=False).digest())
        proven = response.websocket and websocket_accept(response.fields) == accept
        if not (self._request.websocket and key and proven):
            self._refuse(client, "the answer switches protocols without having been asked, or without proof")
            return
        self._state = _TUNNEL
        if self._is_tls:
            self._read_small(_TUNNEL_READ)
            client.read_little()
        client.open_tunnel(switching_bytes(response) + rest)

    # Bodies.

    def _begin_body(self, client: Client, response: Response, data: bytes) -> None:
        request = self._request
        assert request is not None
        self._reusable = not response.closes
        length = response.length
        bodyless = request.method == b"HEAD" or response.status in BODYLESS
        to_old_client = request.minor == 0
        if length == CHUNKED and to_old_client and not bodyless:
            self._refuse(client, "a chunked answer to an HTTP/1.0 request")
            return
        self._wraps = not bodyless and not to_old_client and (length is None or length == CHUNKED)
        if response.status == 204:
            response = response._replace(length=None)
        head = response_bytes(response, chunked=self._wraps, closes=not client.stays_open())
        client.answered(response.status)
        if bodyless or length == 0:
            self._complete(client, head, data)
        elif length is None:
            self._state = _UNTIL_CLOSE
            client.relay(head + (as_chunk(data) if self._wraps else data))
        elif length == CHUNKED:
            self._state = _CHUNKS
            self._chunks = ChunkReader(trailers_allowed=True)
            self._read_chunks(client, head, data)
        else:
            self._state = _LENGTH
            self._left = length
            self._read_length(client, head, data)

    def _read_length(self, client: Client, head: bytes, data: bytes) -> None:
        left = self._left
        if len(data) >= left:
            self._complete(client, head + data[:left], data[left:])
        else:
            self._left = left - len(data)
            client.relay(head + data)

    def _read_chunks(self, client: Client, head: bytes, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None
        try:
            payload = chunks.feed(data)
        except BadChunk as bad:
            client.relay(head)
            self._refuse(client, str(bad))
            return
        if chunks.done:
            self._complete(client, head + as_chunk(payload) + LAST_CHUNK, chunks.rest)
        else:
            client.relay(head + as_chunk(payload))

    def _complete(self, client: Client, data: bytes, rest: bytes) -> None:
        """The answer is whole. Keep the connection only when both sides said everything and nothing more."""
        self._client = self._request = self._chunks = None
        client.relay(data)
        # An unsent rest of the request would be read by the origin as the next one's beginning.
        clean = self._reusable and not rest and client.has_sent_all() and not self.write_blocked
        if clean and not self.is_closing():
            self._state = _IDLE
            self.is_reused = True
            self.go_on()
            self.pool.put(self)
        else:
            self.close()
        client.finish()
