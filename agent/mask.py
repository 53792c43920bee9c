"""Hiding secret values in everything that is streamed. Pure.

Accident protection, not a wall: code that wants to print a secret reversed or compressed can. Hidden are the value
itself, each line of a value of several lines, and base64 of the value at its three possible alignments. No pattern
holds a newline, so that whole lines can be masked one by one.

The pieces of a line longer than MAX_LINE_CHARS are cut where no pattern can straddle the cut.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable

HIDDEN = "***"
MIN_CHARS = 6  # reference/security.md 5.6: shorter ones stand in ordinary words.
MAX_LINE_CHARS = 16 * 1024  # Docker's own limit for one line of a log.


class Patterns:
    """The values to hide, shared by all streams; values may be added at any time."""

    def __init__(self, values: Iterable[str] = (), keep: Callable[[frozenset[str]], None] | None = None) -> None:
        """`keep` is told all values whenever there are new ones."""
        self._keep = keep
        self._values: set[str] = set()
        self._forms: set[str] = set()
        self._regex: re.Pattern[str] | None = None
        self.longest = 0
        self.add(values)

    @property
    def values(self) -> frozenset[str]:
        return frozenset(self._values)

    def add(self, values: Iterable[str]) -> None:
        new = set(values) - self._values
        if not new:
            return
        self._values |= new
        for value in new:
            self._forms |= forms(value)
        # The longest first: an alternation takes the first branch that fits.
        ordered = sorted(self._forms, key=len, reverse=True)
        self.longest = len(ordered[0]) if ordered else 0
        if self._keep is not None:
            self._keep(self.values)
        self._regex = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def hide(self, text: str) -> str:
        return self._regex.sub(HIDDEN, text) if self._regex else text

    def safe_cut(self, text: str, at: int) -> int:
        """A place at or after `at` that no occurrence in `text` straddles."""
        for match in self._regex.finditer(text) if self._regex else ():
            if match.start() < at < match.end():
                return match.end()
        return at


def forms(value: str) -> set[str]:
    """Every text that gives this value away."""
    pieces = {value.strip(), *(line.strip() for line in value.split("\n"))} if "\n" in value else {value}
    found = {piece for piece in pieces if len(piece) >= MIN_CHARS and "\n" not in piece}
    if len(value) >= MIN_CHARS:
        found |= _base64_forms(value.encode()) | _base64_forms(value.strip().encode())
    return found


def _base64_forms(value: bytes) -> set[str]:
    """Base64 of `value` behind 0, 1 or 2 unknown bytes, without the characters that depend on its neighbours."""
    found = set()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + value).decode().rstrip("=")
        determined = (before + len(value)) * 8 // 6  # Characters all of whose bits are known.
        core = coded[-(-before * 8 // 6) : determined]
        if len(core) >= MIN_CHARS:
            found |= {core, core.replace("+", "-").replace("/", "_")}
    return found


class LineMasker:
    """One stream: text of any size in, masked whole lines out."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._rest = ""

    @property
    def is_between_lines(self) -> bool:
        return not self._rest

    def feed(self, text: str) -> str:
        """The lines that are complete now, masked, each with its newline; NUL becomes U+FFFD."""
        lines = (self._rest + text.replace("\x00", "\ufffd").replace("\r\n", "\n")).split("\n")
        self._rest = lines.pop()
        done = [part for line in lines for part in self._masked_parts(line)]
        while len(self._rest) > MAX_LINE_CHARS + self._patterns.longest:
            cut = self._patterns.safe_cut(self._rest, MAX_LINE_CHARS)
            done.append(self._patterns.hide(self._rest[:cut]))
            self._rest = self._rest[cut:]
        return "".join(part + "\n" for part in done)

    def finish(self) -> str:
        """The last line, which had no newline."""
        rest, self._rest = self._rest, ""
        return "".join(part + "\n" for part in self._masked_parts(rest)) if rest else ""

    def _masked_parts(self, line: str) -> list[str]:
        masked = self._patterns.hide(line.removesuffix("\r"))
        starts = range(0, max(len(masked), 1), MAX_LINE_CHARS)
        return [masked[start : start + MAX_LINE_CHARS] for start in starts]
