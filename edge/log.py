"""One JSON line per event on a stream: the edge's whole logging. Keys are spelled as in the rest of Stagely."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

Value = str | int | float | bool | None


class Log:
    """Writes events; an event is a short past-tense fact, everything variable is a key."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def info(self, event: str, **keys: Value) -> None:
        self._write("info", event, keys)

    def warning(self, event: str, **keys: Value) -> None:
        self._write("warning", event, keys)

    def error(self, event: str, **keys: Value) -> None:
        self._write("error", event, keys)

    def _write(self, level: str, event: str, keys: dict[str, Value]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"timestamp": stamp, "level": level, "event": event, "process": "edge", **keys}, default=str)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError:
            pass  # The reader of our log went away; visitors must still be served.
