"""Live progress: one line per step, and on a terminal one more line that is rewritten while something runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
DEFAULT_COLUMNS = 80  # A terminal that does not say its size.
QUIET_S = 15.0  # Without a terminal nothing is rewritten; after this long a line says what it waits for.
_GREEN, _RED, _DIM, _BOLD = 32, 31, 2, 1


class Progress:
    """Writes to one stream (stderr: stdout is for data). `clock` in seconds counts from the first line."""

    def __init__(
        self,
        stream: TextIO = sys.stderr,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._is_coloured = stream.isatty() and not environ.get("NO_COLOR")
        self._clock = clock
        self._began = clock()
        self._said_at = self._began
        self._drawn = False
        self._frame = 0

    def say(self, text: str) -> None:
        """One line for good."""
        self._line(text)

    def headline(self, text: str) -> None:
        """One line that begins something new."""
        self._line(self._paint(text, _BOLD))

    def started(self, what: str) -> None:
        """A step begins. On a terminal the running line shows it instead."""
        if not self._is_terminal:
            self._line(f"{self._elapsed()}  ▸ {what}")

    def ended(self, what: str, seconds: float | None, *, is_good: bool = True, detail: str = "") -> None:
        """A step ended, well or not, after `seconds` of its own."""
        mark = self._paint("✓", _GREEN) if is_good else self._paint("✗", _RED)
        took = f"{seconds:7.1f} s" if seconds is not None else ""
        more = self._paint(f"  {detail}", _DIM) if detail else ""
        self._line(f"{self._elapsed()}  {mark} {what:<28}{took}{more}")

    def waiting(self, text: str) -> None:
        """What it waits for now; call it often, it draws the next frame."""
        if self._is_terminal:
            self._frame += 1
            self._erase()
            line = f"{self._elapsed()}  {FRAMES[self._frame % len(FRAMES)]} {text}"
            self._write(line[: self._width()])
            self._drawn = True
        elif self._clock() - self._said_at >= QUIET_S:
            self._line(f"{self._elapsed()}  … {text}")

    def close(self) -> None:
        """Remove the running line."""
        self._erase()

    def _line(self, text: str) -> None:
        self._erase()
        self._write(text + "\n")
        self._said_at = self._clock()

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def _elapsed(self) -> str:
        return self._paint(f"{self._clock() - self._began:6.1f} s", _DIM)

    def _width(self) -> int:
        colours = 9 if self._is_coloured else 0  # The elapsed time's escape codes take no room on the screen.
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns or DEFAULT_COLUMNS
        except (OSError, ValueError):
            columns = DEFAULT_COLUMNS
        return columns - 1 + colours

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._is_coloured else text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, UnicodeEncodeError):
            pass  # Nobody reads, or cannot show the marks; the result and the exit code still tell.
