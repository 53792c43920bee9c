"""Log streams: bytes of a program in, batches of whole masked lines out."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable

from agent.mask import LineMasker, Patterns
from agent.protocol import MAX_LOG_BYTES

BATCH_S = 0.1  # Architecture section 4: agents batch for 100 ms or 64 KiB; lines per frame matter most to the gateway.
TAIL_LINES = 20  # Architecture section 4: what a failure report shows.

Write = Callable[[str], None]


class LogStream:
    """One stream of one command. `tail` is the last TAIL_LINES masked lines."""

    def __init__(self, patterns: Patterns, write: Write, wake: Callable[[LogStream], None]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._masker = LineMasker(patterns)
        self._write = write
        self._wake = wake
        self._batch: list[str] = []
        self._batch_chars = 0
        self._tail: list[str] = []

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self._tail)

    @property
    def is_between_lines(self) -> bool:
        """Whether everything fed so far is in a batch or said: no line has only begun."""
        return self._masker.is_between_lines and not self._decoder.getstate()[0]

    def feed(self, chunk: bytes) -> None:
        self.feed_text(self._decoder.decode(chunk))

    def feed_text(self, text: str) -> None:
        self._keep(self._masker.feed(text))

    def line(self, text: str) -> None:
        """One line of the agent's own."""
        self.feed_text(text + "\n")

    def flush(self) -> None:
        """Say what is complete."""
        if self._batch:
            self._write("".join(self._batch))
            self._batch, self._batch_chars = [], 0

    def close(self) -> None:
        """The program ended: its last line is complete, newline or not."""
        self.feed_text(self._decoder.decode(b"", final=True))
        self._keep(self._masker.finish())
        self.flush()

    def _keep(self, lines: str) -> None:
        if not lines:
            return
        self._tail = (self._tail + lines.split("\n")[:-1][-TAIL_LINES:])[-TAIL_LINES:]
        self._batch.append(lines)
        self._batch_chars += len(lines)
        if self._batch_chars >= MAX_LOG_BYTES:
            self.flush()
        else:
            self._wake(self)


class Batcher:
    """Flushes streams BATCH_S after their first line; costs nothing while nobody says anything."""

    def __init__(self, batch_s: float = BATCH_S) -> None:
        self._batch_s = batch_s
        self._waiting: set[LogStream] = set()
        self._event = asyncio.Event()

    def wake(self, stream: LogStream) -> None:
        self._waiting.add(stream)
        self._event.set()

    async def run(self) -> None:
        while True:
            await self._event.wait()
            await asyncio.sleep(self._batch_s)
            self.flush()

    def flush(self) -> None:
        self._event.clear()
        waiting, self._waiting = self._waiting, set()
        for stream in waiting:
            stream.flush()
