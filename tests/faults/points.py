"""Where a worker can be killed: every unit of work of a traced clean run, before, between and after its effects. Pure.

A unit is one execution of an activity, or of the loop that publishes a comment. Its marks are what it did, in order:
`begin`, outside effects (`cloud.create`, `redis`, `forge.create_comment`, ...), `committing` and `commit` of a
transaction, and `end`, when the result is known but not yet told to Temporal.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BEGIN, END, COMMITTING, COMMIT = "begin", "end", "committing", "commit"


class Phase(enum.StrEnum):
    """Of a kill: nothing is done yet; done outside (or about to be written), not recorded; recorded, not answered."""

    BEFORE = "before"
    BETWEEN = "between"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the worker at the `count`-th mark of this name in the `occurrence`-th unit of this name (both from 1)."""

    scene: str
    unit: str
    occurrence: int
    phase: Phase
    mark: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.scene}: {self.unit} #{self.occurrence}, {self.phase} ({self.mark} {self.count})"


Trace = Mapping[tuple[str, int], Sequence[str]]
"""(unit, occurrence) to its marks."""


def kills(scene: str, trace: Trace) -> list[Kill]:
    """Three kills per unit of the trace."""
    found = []
    for (unit, occurrence), marks in sorted(trace.items()):
        between = _between(marks)
        places = {Phase.BEFORE: 0, Phase.BETWEEN: between, Phase.AFTER: len(marks) - 1}
        for phase, index in places.items():
            count = Counter(marks[: index + 1])[marks[index]]
            found.append(Kill(scene, unit, occurrence, phase, marks[index], count))
    return found


def _between(marks: Sequence[str]) -> int:
    """After the last outside effect that a commit follows; else in the last transaction; else after the last effect."""
    effects = [i for i, mark in enumerate(marks) if mark not in (BEGIN, END, COMMITTING, COMMIT)]
    followed = [i for i in effects if COMMIT in marks[i:]]
    if followed:
        return followed[-1]
    committing = [i for i, mark in enumerate(marks) if mark == COMMITTING]
    return committing[-1] if committing else (effects or [0])[-1]
