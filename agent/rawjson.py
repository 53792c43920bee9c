"""BuildKit's progress (`buildx build --progress rawjson`) as lines to read and seconds to add up. Pure.

buildx 0.13 prints every event as an object over many lines, later ones print one object per line, and both let plain
text such as the last "ERROR: ..." stand between. `Decoder` takes any pieces of that and gives back objects and text.

Source: BuildKit client.SolveStatus (vertexes, statuses, logs, warnings); buildx 0.13.1 seen.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any  # BuildKit's events; reading code below names every key it takes.

from agent.times import unix_time

_DECODER = json.JSONDecoder()
_EXIT_CODE = re.compile(r"exit code: (\d+)")
_EXPORTS = ("exporting to image", "exporting cache to registry", "pushing ")
METADATA_OF = "[internal] load metadata for "  # What a vertex that asks for a base image is called.
TAIL_LINES = 20


class Decoder:
    """Text in any pieces in; (object, None) or (None, line of other text) out."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
        self._rest += text
        while self._rest:
            self._rest = self._rest.lstrip("\r\n")
            if not self._rest:
                return
            if self._rest.startswith("{"):
                event, end = self._object()
                if end == 0:
                    return
                self._rest = self._rest[end:]
                yield event, None
            else:
                line, newline, rest = self._rest.partition("\n")
                if not newline:
                    return
                self._rest = rest
                yield None, line

    def finish(self) -> str:
        """What is left over at the end."""
        rest, self._rest = self._rest.strip(), ""
        return rest

    def _object(self) -> tuple[dict[str, Any] | None, int]:
        # A complete object ends with a closing brace: without one, trying costs the whole buffer for nothing.
        if "}" not in self._rest:
            return None, 0
        try:
            event, end = _DECODER.raw_decode(self._rest)
        except ValueError:
            return None, 0
        return event, end


@dataclass(slots=True)
class Vertex:
    """One step of the build. `number` is the one that people see ("#5"), in order of their starts.

    BuildKit may start a step again after it completed; `spans` are its finished runs.
    """

    number: int
    name: str
    started: float | None = None
    completed: float | None = None
    spans: list[tuple[float, float]] = field(default_factory=list)
    error: str = ""
    is_cached: bool = False
    tail: list[str] = field(default_factory=list)
    partial: dict[int, str] = field(default_factory=dict)


class Progress:
    """The state of one build; `lines` of each event are what `--progress plain` would show."""

    def __init__(self) -> None:
        self._vertices: dict[str, Vertex] = {}
        self._seen_warnings: set[str] = set()

    def event(self, event: dict[str, Any]) -> list[str]:
        """Take one event and return the lines it adds."""
        lines: list[str] = []
        for vertex in event.get("vertexes") or ():
            lines += self._vertex(vertex)
        for entry in event.get("logs") or ():
            lines += self._log(entry)
        for warning in event.get("warnings") or ():
            lines += self._warning(warning)
        return lines

    @property
    def failed(self) -> Vertex | None:
        """The first step that failed by itself; those that were cancelled because of it come after."""
        failed = [vertex for vertex in self._vertices.values() if vertex.error and not is_cache_import(vertex)]
        real = [vertex for vertex in failed if "context canceled" not in vertex.error]
        return next(iter(real or failed), None)

    @property
    def current(self) -> str:
        """The name of what was running last, for the report of a build that took too long."""
        running = [v.name for v in self._vertices.values() if v.started is not None and v.completed is None]
        return running[-1] if running else ""

    @property
    def is_exporting(self) -> bool:
        """Whether the image or the cache began to be written to the registry."""
        return any(vertex.started is not None and is_export(vertex) for vertex in self._vertices.values())

    @property
    def cached_steps(self) -> tuple[int, int]:
        """How many steps of the Dockerfile came from the build cache, and how many there were."""
        steps = [vertex for vertex in self._vertices.values() if is_step(vertex) and vertex.completed is not None]
        return sum(vertex.is_cached for vertex in steps), len(steps)

    def export_seconds(self) -> float:
        """Seconds in which the image or the cache was being written to the registry."""
        return _union_seconds(sorted(span for v in self._vertices.values() if is_export(v) for span in v.spans))

    def _vertex(self, seen: dict[str, Any]) -> list[str]:
        vertex = self._vertices.setdefault(seen["digest"], Vertex(0, str(seen.get("name", ""))))
        lines = []
        if seen.get("started"):
            if not vertex.number:
                vertex.number = 1 + max(other.number for other in self._vertices.values())
                lines.append(f"#{vertex.number} {vertex.name}")
            began = unix_time(seen["started"])
            if began != vertex.started:
                vertex.started, vertex.completed = began, None
        if seen.get("completed") and vertex.started is not None and vertex.completed is None:
            lines += self._completed(vertex, vertex.started, seen)
        return lines

    def _completed(self, vertex: Vertex, began: float, seen: dict[str, Any]) -> list[str]:
        lines = [_prefixed(vertex, rest) for rest in vertex.partial.values() if rest]
        vertex.tail = (vertex.tail + [rest for rest in vertex.partial.values() if rest])[-TAIL_LINES:]
        vertex.partial.clear()
        is_first = not vertex.spans
        vertex.completed = unix_time(seen["completed"])
        vertex.spans.append((began, vertex.completed))
        vertex.error = str(seen.get("error") or "")
        vertex.is_cached = bool(seen.get("cached"))
        if vertex.error and is_cache_import(vertex):
            return [*lines, f"#{vertex.number} no cache yet"]
        if vertex.error:
            return [*lines, f"#{vertex.number} ERROR: {vertex.error}"]
        if not is_first:
            return lines
        return [
            *lines,
            f"#{vertex.number} {'CACHED' if seen.get('cached') else f'DONE {vertex.completed - began:.1f}s'}",
        ]

    def _log(self, entry: dict[str, Any]) -> list[str]:
        vertex = self._vertices.get(entry.get("vertex", ""))
        if vertex is None:
            return []
        stream = int(entry.get("stream", 1))
        parts = (vertex.partial.pop(stream, "") + _text(entry.get("data", ""))).split("\n")
        vertex.partial[stream] = parts.pop()
        vertex.tail = (vertex.tail + parts)[-TAIL_LINES:]
        return [_prefixed(vertex, part) for part in parts]

    def _warning(self, warning: dict[str, Any]) -> list[str]:
        short = _text(warning.get("short", ""))
        if not short or short in self._seen_warnings:
            return []
        self._seen_warnings.add(short)
        return [f"WARN: {short}"]


def is_step(vertex: Vertex) -> bool:
    """Whether it is a line of the Dockerfile: "[stage 2/4] RUN make"; BuildKit's own work is "[internal] ..."."""
    return vertex.name.startswith("[") and not vertex.name.startswith("[internal]")


def is_export(vertex: Vertex) -> bool:
    return vertex.name.startswith(_EXPORTS)


def is_cache_import(vertex: Vertex) -> bool:
    """A cache that cannot be read makes a build slower, never fail."""
    return vertex.name.startswith("importing cache manifest ")


def exit_code(error: str) -> int | None:
    """The exit code that BuildKit names in a failed step's error; None when the step was no program."""
    found = _EXIT_CODE.search(error)
    return int(found.group(1)) if found else None


def _prefixed(vertex: Vertex, line: str) -> str:
    return f"#{vertex.number} {line.rstrip(chr(13))}"


def _text(coded: str) -> str:
    try:
        return base64.b64decode(coded).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""


def _union_seconds(spans: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for began, ended in spans:
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total
