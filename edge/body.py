"""The body of one request on its way to the VM: counted, checked, and framed anew. Pure."""

from __future__ import annotations

from edge.chunks import LAST_CHUNK, ChunkReader, as_chunk
from edge.head import CHUNKED


class RequestBody:
    """After each `carry`: `done` says whether the body ended, and `rest` holds what came behind its end.

    carried: bytes of the body so far, framing not counted.
    """

    __slots__ = ("_chunks", "_left", "carried", "done", "rest")

    def __init__(self, length: int) -> None:
        self._chunks = ChunkReader(trailers_allowed=False) if length == CHUNKED else None
        self._left = length
        self.carried = 0
        self.done = length == 0
        self.rest = b""

    def carry(self, data: bytes) -> bytes:
        """What to send on for these bytes from the client. Raises BadChunk."""
        if self._chunks is None:
            piece, self.rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
            self.carried += len(piece)
            self.done = self._left == 0
            return piece
        payload = self._chunks.feed(data)
        self.carried += len(payload)
        self.done, self.rest = self._chunks.done, self._chunks.rest
        return as_chunk(payload) + LAST_CHUNK if self.done else as_chunk(payload)


NO_BODY = RequestBody(0)
