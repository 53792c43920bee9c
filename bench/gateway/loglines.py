"""Lines of a build's log, numbered so that a lost, doubled or misplaced one is found. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

LINE_BYTES = 100  # With its line break, as in reference measurements of log storage.
STREAM = "build/app"
COMMAND_ID = "bench/build"
_KINDS = 8191  # So many different texts: a frame holds none twice, for repeats would flatter compression.
_PACKAGES = ("libssl", "python3", "gcc", "perl", "nodejs", "zlib1g", "git", "curl", "locales", "postgresql")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of the expected lines are not there, are there again, or stand behind one with a higher number."""

    lost: int
    doubled: int
    misplaced: int


def frame_text(agent: int, seq: int, first: int, count: int) -> bytes:
    """A LOG message with lines `first` to `first + count - 1` of an agent."""
    data = "\\n".join(line(agent, n) for n in range(first, first + count))
    fields = f'"seq":{seq},"command_id":"{COMMAND_ID}","stream":"{STREAM}","data":"{data}\\n"'
    return f'{{"type":"LOG",{fields}}}'.encode()


def line(agent: int, number: int) -> str:
    """Without its line break; nothing in it needs an escape in JSON."""
    return f"{agent:04d} {number:08d} {_TEXTS[number % _KINDS]}"


def tally(lines: Iterable[str], agent: int, expected: int) -> Tally:
    """What became of lines 0 to `expected - 1`. Raises ValueError for a line that this agent never wrote."""
    seen: set[int] = set()
    total, misplaced, highest = 0, 0, -1
    for text in lines:
        number = int(text[5:13])
        if text != line(agent, number) or number >= expected:
            raise ValueError(f"agent {agent} never wrote {text[:LINE_BYTES]!r}")
        total += 1
        misplaced += number < highest
        highest = max(highest, number)
        seen.add(number)
    return Tally(expected - len(seen), total - len(seen), misplaced)


def _text(chance: random.Random) -> str:
    package = f"{chance.choice(_PACKAGES)}-{chance.randrange(16**4):04x}"
    version = f"{chance.randrange(10)}.{chance.randrange(40)}.{chance.randrange(40)}-{chance.randrange(9)}"
    size = f"[{chance.randrange(10_000)} kB]"
    text = f"#{chance.randrange(30)} {chance.random() * 99:.3f} Get:{chance.randrange(500)} deb.example.org/debian"
    return f"{text} {package} amd64 {version} {size}".ljust(_TEXT_BYTES, ".")[:_TEXT_BYTES]


_TEXT_BYTES = LINE_BYTES - len("0000 00000000 ") - 1
_CHANCE = random.Random(1)
_TEXTS = [_text(_CHANCE) for _ in range(_KINDS)]
