"""One connection from a visitor: reads requests, finds where each leads, and carries bodies both ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edge import pages, plain
from edge.body import NO_BODY, RequestBody
from edge.chunks import BadChunk
from edge.connection import Connection
from edge.head import HeadRefused, Request, take_request, wants_json
from edge.headers import request_bytes
from edge.phase import CLOSED, DIAL, EXCHANGE, HEAD, LINGER, ROUTE, TUNNEL
from edge.table import Entry

if TYPE_CHECKING:
    from edge.proxy import Edge
    from edge.upstream import Upstream

_LEFT = 499  # What nginx logs for a visitor who left before the answer.
_IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")  # RFC 9110 section 9.2.2, without TRACE.


class Client(Connection):
    """Serves one request at a time, in order; what is sent ahead waits in `_buffer`."""

    __slots__ = (
        "_begun_at", "_body", "_entry", "_keep_alive", "_outgoing", "_parsing", "_request", "_retried", "_status",
        "_upstream", "_vm_ended",
    )  # fmt: skip

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge)
        self._request: Request | None = None
        self._entry: Entry | None = None
        self._upstream: Upstream | None = None
        self._body = NO_BODY
        self._outgoing = b""
        self._begun_at = 0.0
        self._status = 0  # Of the answer that has begun; 0 before.
        self._keep_alive = True
        self._retried = False
        self._parsing = False
        self._vm_ended = False

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._edge.admit(self, self._address):
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase in (ROUTE, DIAL, EXCHANGE, TUNNEL):
            self._status = self._status or _LEFT
            self._record(self._edge.clock())
        self._phase = CLOSED
        self._edge.forget(self, self._address)
        if self._upstream is not None:
            self._upstream.abandon()
            self._upstream = None

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is HEAD:
            if not (self._buffer or self.write_blocked):
                request = plain.request(data, Request)
                if request is not None:
                    self._begin(request)
                    return
            self._buffer = self._buffer + data if self._buffer else data
            self._read_heads()
        elif phase is TUNNEL and self._upstream is not None:
            self.deadline = self._edge.clock() + self._edge.limits.tunnel_s
            self._upstream.write(data)
        elif phase is EXCHANGE and not self._body.done:
            self._read_body(data)
        elif phase not in (LINGER, CLOSED):
            self._buffer += data
            if len(self._buffer) > self._edge.limits.hold_bytes:
                self.hold()

    def eof_received(self) -> bool:
        """A client may end its side and still wait for the answer (`nc`, HTTP/1.0 scripts)."""
        self._half_closed = True
        if not self._transport.can_write_eof():
            return False  # TLS: both sides end together.
        if self._phase is TUNNEL and self._upstream is not None:
            self._upstream.end_writing()
            return not self._vm_ended
        return self._phase in (ROUTE, DIAL, EXCHANGE) and self._body.done

    def pause_writing(self) -> None:
        self.write_blocked = True
        self.deadline = self._edge.clock() + self._edge.limits.stall_s
        if self._upstream is not None:
            self._upstream.hold()

    def resume_writing(self) -> None:
        self.write_blocked = False
        limits = self._edge.limits
        limit_s = limits.tunnel_s if self._phase is TUNNEL else limits.stream_s
        self.deadline = self._edge.clock() + (limit_s if self._upstream is not None else limits.idle_s)
        if self._upstream is not None:
            self._upstream.go_on()
        elif self._phase is HEAD and self._buffer:
            self._read_heads()
            self.go_on()

    # What the edge says.

    def expired(self) -> None:
        """The deadline of this phase has passed."""
        phase = self._phase
        if phase is HEAD and self._buffer:
            self._refuse(HeadRefused(408, "the head of the request took too long"))
        elif self.write_blocked or self._transport.is_closing():
            self._transport.abort()
        elif phase is ROUTE:
            self._keep_alive = False  # The table's answer may still come, and must not meet another request.
            self._answer(pages.away())
        elif phase in (DIAL, EXCHANGE):
            self._keep_alive = False
            self.fail(504, "the preview did not answer in time")
        else:
            self._transport.close()

    def drain(self) -> None:
        """Take no further request; close now when none is under way."""
        self._keep_alive = False
        if self._phase is HEAD and not self._buffer:
            self._transport.close()

    def routed(self, entry: Entry | None) -> None:
        """The table's answer; None: nobody can say where the host leads."""
        if self._phase is ROUTE:  # Else the client left, or was told that it takes too long.
            self._follow(entry, self._edge.clock())

    def connected(self, upstream: Upstream) -> None:
        """The connection that was dialled for this client; kept for another when it is no longer waited for."""
        if self._phase is DIAL and self._entry is not None and self._entry.pool is upstream.pool:
            self._send(upstream, self._edge.clock())
        else:
            upstream.pool.put(upstream)

    def unreachable(self, reason: str) -> None:
        """The dialler gave up."""
        if self._phase is DIAL:
            self.fail(502, reason)

    # What the upstream says.

    def has_sent_all(self) -> bool:
        return self._body.done

    def stays_open(self) -> bool:
        """Whether another request may follow on this connection; told to the client with the answer's head."""
        if self._half_closed or self._edge.is_draining or not self._body.done:
            self._keep_alive = False
        return self._keep_alive

    def answered(self, status: int) -> None:
        """The answer has begun; its status can no longer be changed."""
        self._status = status

    def relay(self, data: bytes) -> None:
        if not self.write_blocked:
            limits = self._edge.limits
            self.deadline = self._edge.clock() + (limits.tunnel_s if self._phase is TUNNEL else limits.stream_s)
        self._transport.write(data)

    def tunnel_closed(self) -> None:
        """The VM closed the tunnel."""
        self._upstream = None
        self._record(self._edge.clock())
        self._close()

    def open_tunnel(self, data: bytes) -> None:
        """The upgrade was accepted: pass bytes from here on, those sent ahead first."""
        self._phase = TUNNEL
        self._status = 101
        self.relay(data)
        ahead, self._buffer = self._buffer, b""
        if ahead and self._upstream is not None:
            self._upstream.write(ahead)
        self.go_on()

    def end_writing(self) -> bool:
        """The VM's side of a tunnel ended. Whether the other direction may still pass bytes."""
        self._vm_ended = True
        if self._transport.is_closing():
            return False
        if not self._transport.can_write_eof():
            self._transport.close()  # TLS has no half-closed connection here: what was relayed is still sent.
            return False
        self._transport.write_eof()
        return not self._half_closed

    def go_on(self) -> None:
        """Read again, unless the VM still takes no more."""
        if self._is_held and (self._upstream is None or not self._upstream.write_blocked):
            self._read_on()

    def answer_whole(self, status: int, data: bytes) -> None:
        """The complete answer in one piece: what `answered`, `relay` and `finish` do for all others."""
        self._upstream = None  # It waits for anybody's next request, and must not be held when this visitor blocks.
        self._status = status
        self._transport.write(data)
        self.finish()

    def finish(self) -> None:
        """The answer has been written completely."""
        self._upstream = None
        edge = self._edge
        now = edge.clock()
        self._record(now)
        if not self.stays_open():
            self._close()
            return
        self._phase = HEAD
        self._request = self._entry = None
        self._outgoing = b""
        self._status = 0
        self.deadline = now + edge.limits.idle_s
        if self._buffer:
            self._read_heads()
        if self._is_held:
            self.go_on()

    def lost_unanswered(self, *, was_reused: bool) -> None:
        """The connection to the VM died without a byte. Try once more when that cannot do anything twice."""
        request, entry = self._request, self._entry
        assert request is not None
        self._upstream = None
        safe = was_reused and not self._retried and request.length == 0 and request.method in _IDEMPOTENT
        if safe and entry is not None:
            self._retried = True
            self._dial(entry)
        else:
            self.fail(502, "the preview closed the connection without an answer")

    def fail(self, status: int, reason: str) -> None:
        """End the exchange: with a page when the answer has not begun, else by cutting it off visibly."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        if self._phase is CLOSED:
            return
        self._edge.failed(self._entry.route if self._entry else None, status, reason)
        if self._status or self._phase is TUNNEL:
            self._record(self._edge.clock())
            self._phase = CLOSED
            self._transport.close()
        else:
            self._answer(pages.refused(400, reason) if status == 400 else pages.unreachable(status, reason))

    # Requests.

    def _read_heads(self) -> None:
        """Serve what is buffered. One loop, not recursion: a client may send a thousand requests in one packet."""
        if self._parsing:
            return
        self._parsing = True
        try:
            while self._phase is HEAD and self._buffer and not self.write_blocked and self._read_head():
                pass
        finally:
            self._parsing = False
        if self.write_blocked and len(self._buffer) > self._edge.limits.hold_bytes:
            self.hold()  # Who takes no answers must not have more of them made.

    def _read_head(self) -> bool:
        """Take one request from the buffer. False when its head is not complete, or refused."""
        try:
            taken = take_request(self._buffer)
        except HeadRefused as refused:
            self._refuse(refused)
            return False
        if taken is None:
            # The time of a head begins with its first byte and is not prolonged by the next.
            self.deadline = min(self.deadline, self._edge.clock() + self._edge.limits.head_s)
            return False
        request, self._buffer = taken
        self._begin(request)
        return True

    def _begin(self, request: Request) -> None:
        edge = self._edge
        self._request = request
        self._retried = False
        # What follows a refused upgrade may be frames and is no request.
        self._keep_alive = not (request.closes or request.websocket or edge.is_draining)
        self._body = RequestBody(request.length) if request.length else NO_BODY
        self._begun_at = now = edge.clock()
        self._phase = ROUTE
        label = edge.labels[request.host]
        if label is None:
            self._answer(pages.for_route(None))
            return
        if self._sni is None:
            if edge.redirects:
                self._answer(pages.at_https(edge.https_url(request.host, request.target)))
                return
        elif request.host != self._sni and request.host.partition(b":")[0] != self._sni:
            self._answer(pages.misdirected())
            return
        if (entry := edge.table.verified(label)) is not None:
            self._follow(entry, now)
        else:
            self.deadline = now + edge.limits.route_s
            edge.table.resolve(label, self.routed)

    def _follow(self, entry: Entry | None, now: float) -> None:
        """Go where the table says, or answer why not."""
        if entry is None:
            self._answer(pages.away())
            return
        if not entry.bucket.take(now):
            self._answer(pages.over_limit())
            return
        self._entry = entry
        pool = entry.pool
        if pool is None:
            self._answer(pages.for_route(entry.route))
            return
        request = self._request
        assert request is not None
        self._outgoing = request_bytes(request, entry.fields, self._fields)
        if (upstream := pool.take(now)) is not None:
            self._send(upstream, now)
        else:
            self._dial(entry)

    def _dial(self, entry: Entry) -> None:
        assert entry.pool is not None
        if entry.pool.is_full():
            self.fail(503, "the preview has too many open connections")
            return
        self._phase = DIAL
        self.deadline = self._edge.clock() + 2 * self._edge.limits.connect_s  # The dialler's own limit comes first.
        self._edge.dial(entry.pool, self)

    def _send(self, upstream: Upstream, now: float) -> None:
        request = self._request
        assert request is not None
        self._phase = EXCHANGE
        self._upstream = upstream
        self.deadline = now + self._edge.limits.response_s
        upstream.begin(self, request, self._outgoing)
        if not self._body.done:
            ahead, self._buffer = self._buffer, b""
            if ahead:
                self._read_body(ahead)
            self.go_on()

    def _read_body(self, data: bytes) -> None:
        upstream = self._upstream
        assert upstream is not None
        self.deadline = self._edge.clock() + self._edge.limits.response_s
        try:
            piece = self._body.carry(data)
        except BadChunk as bad:
            self.fail(400, str(bad))
            return
        self._buffer = self._body.rest
        upstream.write(piece)

    # Answers of our own.

    def _refuse(self, refused: HeadRefused) -> None:
        self._request = None
        self._keep_alive = False
        self._edge.refused(self._address, refused)
        self._answer(pages.refused(refused.status, refused.reason))

    def _answer(self, page: pages.Page) -> None:
        request = self._request
        self._status = page.status
        self._edge.metrics.pages[page.code] += 1
        as_json = request is not None and wants_json(request.fields)
        headless = request is not None and request.method == b"HEAD"
        closes = request is None or not self.stays_open()
        self._keep_alive = not closes
        self._transport.write(pages.answer_bytes(page, as_json=as_json, without_body=headless, closes=closes))
        self.finish()

    def _close(self) -> None:
        all_read = self._body.done and not self._buffer and self._request is not None
        self._end(at_once=all_read or self._vm_ended)

    def _record(self, now: float) -> None:
        """Count and log the exchange that ends."""
        request = self._request
        if request is None:
            return
        took_s = now - self._begun_at
        self._edge.metrics.served(self._status, took_s)
        if self._edge.access_log:
            self._edge.served(request, self._entry, self._status, took_s, self._body.carried)
