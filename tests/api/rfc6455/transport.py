"""A transport that keeps what is written to it, for tests that need no network."""

from __future__ import annotations

import asyncio


class KeptTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.has_ended = False
        self.was_closed = False
        self.was_aborted = False
        self.is_read = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.has_ended, "written behind the end"
        self.written += data

    def write_eof(self) -> None:
        assert not self.has_ended, "ended twice"
        self.has_ended = True

    def close(self) -> None:
        self.has_ended = self.was_closed = True

    def abort(self) -> None:
        self.has_ended = self.was_aborted = True

    def is_closing(self) -> bool:
        return self.was_closed or self.was_aborted

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever left unwritten."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True
