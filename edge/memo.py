"""Results of pure functions of bytes, remembered for keys that come again. Pure.

Browsers send the same header block with most requests to a host, and a server answers many with the same head. What
never comes again must cost little: a key is remembered from its second sighting on, and until then one byte of its
hash is, in a table that fits the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

KEY_MAX = 4096  # A longer head is rare, and a few of them would push all others out.
KEYS_SIZE_MAX = 8 << 20  # Bytes of all keys; results hold about as much again.
_SIGHTED_SIZE = 1 << 15

V = TypeVar("V")


class Memo(dict[bytes, V], Generic[V]):
    """`memo[key]` is `compute(key)`. What that raises is raised each time and never remembered."""

    __slots__ = ("_compute", "_sighted", "_size")

    def __init__(self, compute: Callable[[bytes], V]) -> None:
        super().__init__()
        self._compute = compute
        self._sighted = bytearray(_SIGHTED_SIZE)
        self._size = 0

    def __missing__(self, key: bytes) -> V:
        result = self._compute(key)
        mark = hash(key)
        place, trace = mark % _SIGHTED_SIZE, mark >> 24 & 0xFF or 1  # 0: nothing was sighted here.
        if self._sighted[place] != trace:
            self._sighted[place] = trace
        elif len(key) <= KEY_MAX:
            self._keep(key, result)
        return result

    def _keep(self, key: bytes, result: V) -> None:
        if self._size + len(key) > KEYS_SIZE_MAX:
            self.clear()
            self._size = 0
        self._size += len(key)
        self[key] = result
