"""Finding any of many texts in a text, at a price that hardly grows with their number. Pure.

Every text that is searched for, wherever it stands, holds a whole gram (eight bytes, or four) that begins at one of
the places looked at, if these are close enough together. So a look at every eighth place in a table of grams tells
where a text may begin, and only there it is compared. The looking is done by C: a memoryview turns bytes into the
numbers of their grams, `map` looks them up. (A regular expression of 35,000 texts was ten to twenty times slower.)
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import compress

SHORTEST_CHARS = 5  # The last sieve holds texts of this length and longer.
_HEAD_CHARS = 4  # Texts are told apart by their first characters, then compared.
_ALONE = tuple((offset,) for offset in range(8))  # Shared: a tuple of its own for each gram costs 50 bytes.


@dataclass(frozen=True, slots=True)
class _Sieve:
    """Says where texts of at least `width + step - 1` characters may begin, by grams at every `step`-th place.

    `offsets`: for a gram, how many characters behind the beginning of a text it may stand.
    """

    width: int
    step: int
    offsets: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def shortest_chars(self) -> int:
        return self.width + self.step - 1

    def take(self, text: str) -> None:
        coded = _coded(text[: self.shortest_chars])
        for offset in range(self.step):
            gram = int.from_bytes(coded[offset : offset + self.width], sys.byteorder)
            known = self.offsets.setdefault(gram, _ALONE[offset])
            if offset not in known:
                self.offsets[gram] = (*known, offset)

    def begins(self, coded: bytes) -> list[int]:
        """Where a text may begin, in no order; it may also be before the first character."""
        found: list[int] = []
        for shift in range(0, self.width, self.step):
            whole = memoryview(coded)[shift : len(coded) - (len(coded) - shift) % self.width]
            grams = whole.cast("Q" if self.width == 8 else "I")
            for at in compress(range(len(grams)), map(self.offsets.get, grams)):
                found += [shift + at * self.width - offset for offset in self.offsets[grams[at]]]
        return found


class Index:
    """Finds `texts`, none of them shorter than SHORTEST_CHARS."""

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = frozenset(texts)
        self._ordered = sorted(self._texts)
        self._longest = max(map(len, self._ordered), default=0)
        self._sizes = _sizes_by_head(self._ordered)
        self._sieves = _sieves(self._ordered)

    def hits(self, text: str) -> list[tuple[int, int]]:
        """Every place where one of the texts begins, with the end of the longest one there, in order."""
        coded = _coded(text)
        found = []
        for begin in sorted({begin for sieve in self._sieves for begin in sieve.begins(coded)}):
            for size in self._sizes.get(text[begin : begin + _HEAD_CHARS], ()) if begin >= 0 else ():
                if text[begin : begin + size] in self._texts and begin + size <= len(text):
                    found.append((begin, begin + size))
                    break
        return found

    def begun_at(self, text: str) -> int:
        """Where the longest end of `text` begins that is the beginning of one of the texts; else its length.

        Nothing before the last newline counts: no text holds one.
        """
        for at in range(max(len(text) - self._longest + 1, text.rfind("\n") + 1, 0), len(text)):
            tail = text[at:]
            place = bisect_right(self._ordered, tail)  # What begins with the tail and is longer stands right behind it.
            if place < len(self._ordered) and self._ordered[place].startswith(tail):
                return at
        return len(text)


def _coded(text: str) -> bytes:
    """One byte for each character. Characters beyond Latin-1 look alike: who is found is compared anyway."""
    return text.encode("latin-1", "replace")


def _sizes_by_head(texts: Iterable[str]) -> dict[str, list[int]]:
    """The lengths of the texts that begin with these characters, longest first."""
    sizes: dict[str, set[int]] = {}
    for text in texts:
        sizes.setdefault(text[:_HEAD_CHARS], set()).add(len(text))
    return {head: sorted(lengths, reverse=True) for head, lengths in sizes.items()}


def _sieves(texts: Iterable[str]) -> list[_Sieve]:
    """As few as hold all of these texts: grams of eight bytes, but for short ones."""
    sieves = [_Sieve(8, 8), _Sieve(4, 4), _Sieve(4, 2)]
    for text in texts:
        next(sieve for sieve in sieves if len(text) >= sieve.shortest_chars).take(text)
    return [sieve for sieve in sieves if sieve.offsets]
