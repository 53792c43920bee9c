"""Keeps the trace of what workers do, and says when one dies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.faults.points import BEGIN, Kill


@dataclass(slots=True)
class Director:
    """`unit` in marks is "NAME/ID": the id tells executions apart."""

    kill: Kill | None = None
    has_killed: bool = False
    trace: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    _numbers: dict[str, tuple[str, int]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, unit: str, mark: str) -> bool:
        """Write the mark down. True: the worker dies here."""
        if mark == BEGIN and unit not in self._numbers:
            name = unit.partition("/")[0]
            self._counts[name] += 1
            self._numbers[unit] = (name, self._counts[name])
        key = self._numbers.get(unit)
        if key is None:
            return False
        marks = self.trace.setdefault(key, [])
        marks.append(mark)
        return self._dies(key, marks)

    def _dies(self, key: tuple[str, int], marks: list[str]) -> bool:
        kill = self.kill
        if kill is None or self.has_killed or key != (kill.unit, kill.occurrence):
            return False
        if marks[-1] != kill.mark or marks.count(kill.mark) != kill.count:
            return False
        self.has_killed = True
        return True
