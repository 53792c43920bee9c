"""What the person at `stagely dev` sees: our own lines, and the children's lines with their names in front."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TextIO, cast

NAME_WIDTH = 9
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # ANSI foregrounds that are readable on dark and on light.
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_HIDDEN = frozenset({"event", "level", "timestamp", "process", "logger"})


class Console:
    """Writes whole lines to one stream; colours only on a terminal without NO_COLOR."""

    def __init__(self, stream: TextIO = sys.stderr, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._is_coloured = stream.isatty() and not environ.get("NO_COLOR")
        self._colours: dict[str, int] = {}

    def say(self, text: str) -> None:
        """One line of ours."""
        self._write(self._paint("stagely".rjust(NAME_WIDTH), 1) + f" │ {text}")

    def warn(self, text: str) -> None:
        """One line of ours that someone should notice."""
        self._write(self._paint("stagely".rjust(NAME_WIDTH), 1) + f" │ {self._paint(text, 33)}")

    def plain(self, text: str = "") -> None:
        """Text as it is, without a name."""
        self._write(text)

    def child(self, name: str, line: str) -> None:
        """One line of the child `name`; its JSON log lines are shown as a sentence with keys."""
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        text, level = readable(line)
        shown = self._paint(text, _LEVEL_COLOURS[level]) if level in _LEVEL_COLOURS else text
        self._write(f"{self._paint(name.rjust(NAME_WIDTH), colour)} │ {shown}")

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._is_coloured else text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass  # Nobody reads any more (`stagely dev | head`); the files under logs/ still get every line.


def readable(line: str) -> tuple[str, str]:
    """A log line for people, and its level ("" when it has none). What is no JSON object stays as it is."""
    if not line.startswith("{"):
        return line, ""
    try:
        # cast: json.loads gives Any; an object's keys are always strings.
        fields = cast("dict[str, object]", json.loads(line))
    except ValueError:
        return line, ""
    keys = " ".join(f"{key}={value}" for key, value in fields.items() if key not in _HIDDEN)
    event = str(fields.get("event") or fields.get("msg") or "")
    return (f"{event}  {keys}" if keys else event), str(fields.get("level", "")).lower()
