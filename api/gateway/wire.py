"""`websockets`' Sans-I/O protocol, given one request or frame at a time.

So what is answered never depends on how the network cut the stream.
"""

from __future__ import annotations

import logging

from websockets import protocol as wire
from websockets.server import ServerProtocol

from agent.protocol import MAX_FRAME_BYTES
from api.gateway.frames import MAX_REQUEST_BYTES, FrameEnds, RequestEnd

# Per frame only: the library counts a ping between fragments as part of their message. FrameEnds counts messages.
_MAX_SIZE = (None, MAX_FRAME_BYTES)
_LOGGER = logging.getLogger("websockets.server")  # One for all: the library makes one for each connection.


class Wire:
    """`text`: of the fragments so far; not a list, for fragments may be empty and endless."""

    __slots__ = ("ends", "protocol", "text")

    def __init__(self, protocol: wire.Protocol, ends: RequestEnd | FrameEnds) -> None:
        self.protocol = protocol
        self.ends = ends
        self.text = bytearray()

    @classmethod
    def of_request(cls) -> Wire:
        """For a connection whose request is still to come."""
        return cls(ServerProtocol(max_size=_MAX_SIZE, logger=_LOGGER), RequestEnd())

    @classmethod
    def of_frames(cls, limit_bytes: int) -> Wire:
        """For an open connection, at the head of a frame that continues no message. `limit_bytes`: of a message."""
        return cls(wire.Protocol(wire.Side.SERVER, max_size=_MAX_SIZE, logger=_LOGGER), FrameEnds(limit_bytes))

    def refuse_endless(self) -> None:
        """Answer a request that has no end where it must have one."""
        handshake, ends = self.protocol, self.ends
        if not isinstance(handshake, ServerProtocol) or not isinstance(ends, RequestEnd):
            return
        if ends.is_too_far and handshake.state is wire.State.CONNECTING and not handshake.eof_sent:
            handshake.send_response(handshake.reject(431, f"A request has at most {MAX_REQUEST_BYTES} bytes.\n"))

    @property
    def is_plain_again(self) -> bool:
        """Whether it is open and remembers nothing of what came."""
        protocol, ends = self.protocol, self.ends
        is_open = protocol.state is wire.State.OPEN and protocol.current_size is None
        return is_open and isinstance(ends, FrameEnds) and ends.is_between
