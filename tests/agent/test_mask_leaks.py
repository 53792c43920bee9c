"""Nothing of a value is left, whoever wrote it in whatever encoding, and wherever the stream was cut.

A case is a value, an encoding and a split. The encodings are written down here a second time, by what programs really
print; what may be left of them is computed bit by bit.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest

from agent.mask import HIDDEN, MAX_LINE_CHARS, MIN_CHARS, LineMasker, Masker, Patterns

AROUND = "·¦§\n"  # Stands around a value and in no value: what else is in the output, is left of the value.
WORDS = string.ascii_letters + string.digits
SPECIAL = string.punctuation.replace("*", "") + "ßé€漢😀 "
ASTRAL = "ßé€漢字😀🔑"


@dataclass(frozen=True, slots=True)
class Spelled:
    """How an encoding writes a value, and the characters of it that tell nothing, or too little, of the value."""

    text: str
    may_stay: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    value: str
    encoding: str
    pieces: list[str]
    may_stay: str

    def leak(self, patterns: Patterns) -> str:
        """What is left and must not be, through both kinds of masker."""
        return self._left("".join(fed(Masker(patterns), self.pieces))) or self._left(
            "".join(fed(LineMasker(patterns), self.pieces))
        )

    def _left(self, output: str) -> str:
        shown = Counter(char for char in output if char not in AROUND and char not in HIDDEN and not char.isspace())
        return "".join((shown - Counter(self.may_stay)).elements())


def fed(masker: Masker | LineMasker, pieces: list[str]) -> list[str]:
    return [*map(masker.feed, pieces), masker.finish()]


def cases(count: int, seed: int) -> Iterator[tuple[Patterns, Case]]:
    """Random cases, the same for the same seed."""
    rng = random.Random(seed)
    made = 0
    while True:
        value = a_value(rng)
        patterns = Patterns([value, *(a_value(rng) for _ in range(rng.choice((0, 0, 1, 3))))])
        for encoding, spell in ENCODINGS.items():
            if made == count:
                return
            made += 1
            spelled = spell(value, rng)
            text = around(rng) + spelled.text + around(rng)
            yield patterns, Case(value, encoding, split(rng, text), spelled.may_stay)


def leaks(count: int, seed: int) -> list[tuple[Case, str]]:
    found = ((case, case.leak(patterns)) for patterns, case in cases(count, seed))
    return [(case, leak) for case, leak in found if leak]


def a_value(rng: random.Random) -> str:
    kind = rng.choice(("token", "token", "special", "astral", "lines", "lines", "periodic", "long", "spaces"))
    match kind:
        case "special":
            return some(rng, WORDS + SPECIAL, 8, 40) + "x"
        case "astral":
            return some(rng, ASTRAL, 6, 20)
        case "lines":
            newline = rng.choice(("\n", "\n", "\r\n"))
            return newline.join(some(rng, WORDS + "+/= '", 1, 70) for _ in range(rng.randint(2, 6))) + newline + "end."
        case "periodic":
            return some(rng, WORDS, 1, 3) * rng.randint(6, 60)
        case "long":
            return some(rng, WORDS + "-_.", 100, 400)
        case "spaces":
            return " \t" + some(rng, WORDS, 6, 20) + rng.choice(("\n", "\r\n", " "))
        case _:
            return some(rng, WORDS, 6, 40)


def some(rng: random.Random, alphabet: str, shortest: int, longest: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(shortest, longest)))


def around(rng: random.Random) -> str:
    return "".join(rng.choices(AROUND, k=rng.choice((0, 1, 3, 80))))


def split(rng: random.Random, text: str) -> list[str]:
    """Nowhere, at every character, or at some places."""
    cuts = rng.choice((0, 1, 2, 8, len(text)))
    places = range(1, len(text)) if cuts >= len(text) else sorted(rng.sample(range(1, len(text)), cuts))
    return [text[begin:end] for begin, end in pairwise((0, *places, len(text)))]


def spell_lines(text: str) -> Spelled:
    """Lines that are too short on their own may stay."""
    return Spelled(text, "".join(line.strip() for line in text.split("\n") if len(line.strip()) < MIN_CHARS))


def spell_base64(value: str, before: bytes, behind: bytes) -> Spelled:
    """The characters with bits of the neighbours, or of nothing, may stay."""
    coded = value.strip().encode()
    text = base64.b64encode(before + coded + behind).decode()
    first_bit, end_bit = len(before) * 8, (len(before) + len(coded)) * 8
    stays = (char for at, char in enumerate(text) if not first_bit <= at * 6 <= at * 6 + 6 <= end_bit)
    return Spelled(text, "".join(stays))


def spell_wrapped(value: str, columns: int) -> Spelled:
    """The last line may stay where it is short, and its last character and filling wherever it is."""
    whole = spell_base64(value, b"", b"\n")
    text = "\n".join(whole.text[at : at + columns] for at in range(0, len(whole.text), columns))
    determined = len(whole.text) - len(whole.may_stay)
    last = determined % columns
    return Spelled(text, whole.may_stay + (whole.text[determined - last : determined] if last < MIN_CHARS else ""))


def url_safe(spelled: Spelled) -> Spelled:
    change = str.maketrans("+/", "-_")
    return Spelled(spelled.text.translate(change), spelled.may_stay.translate(change))


Spell = Callable[[str, random.Random], Spelled]

ENCODINGS: dict[str, Spell] = {
    "raw": lambda value, _: spell_lines(value),
    "with carriage returns": lambda value, _: spell_lines(value.replace("\r", "").replace("\n", "\r\n")),
    "line by line": lambda value, _: spell_lines("\n".join(line.strip() for line in value.split("\n"))),
    "base64": lambda value, rng: spell_base64(value, b"", rng.randbytes(rng.randint(0, 4))),
    "base64 behind one byte": lambda value, rng: spell_base64(value, rng.randbytes(1), rng.randbytes(2)),
    "base64 behind two bytes": lambda value, rng: spell_base64(value, rng.randbytes(2), rng.randbytes(3)),
    "base64 inside": lambda value, rng: spell_base64(value, rng.randbytes(rng.randint(3, 9)), rng.randbytes(5)),
    "url-safe": lambda value, rng: url_safe(spell_base64(value, b"", rng.randbytes(2))),
    "url-safe behind one byte": lambda value, rng: url_safe(spell_base64(value, rng.randbytes(1), b"")),
    "url-safe behind two bytes": lambda value, rng: url_safe(spell_base64(value, rng.randbytes(2), b"x")),
    "base64 of MIME": lambda value, _: spell_wrapped(value, 76),
    "base64 of PEM": lambda value, _: spell_wrapped(value, 64),
    "url": lambda value, _: Spelled(quote(value.strip(), safe="")),
    "url path": lambda value, _: Spelled(quote(value.strip())),
    "form field": lambda value, _: Spelled(quote_plus(value.strip())),
    "url in lower case": lambda value, _: Spelled(quote_in_lower_case(value.strip())),
    "json": lambda value, _: Spelled(json.dumps(value.strip())[1:-1]),
    "json of JavaScript": lambda value, _: Spelled(json.dumps(value.strip(), ensure_ascii=False)[1:-1]),
    "hex": lambda value, _: Spelled(value.strip().encode().hex()),
    "HEX": lambda value, _: Spelled(value.strip().encode().hex().upper()),
    "shell": lambda value, _: spell_lines(value.strip().replace("'", "'\\''")),
}


def quote_in_lower_case(value: str) -> str:
    return "".join(char if char in WORDS + "-_.~" else "".join(f"%{b:02x}" for b in char.encode()) for char in value)


def test_every_encoding_of_ten_thousand_cases_is_hidden() -> None:
    assert leaks(10_000, seed=20261126) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_encoding_of_a_hundred_thousand_cases_is_hidden() -> None:
    assert leaks(100_000, seed=5) == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_leaks_where_nothing_is_masked(encoding: str) -> None:
    nothing = Patterns()
    leaking = [case for _, case in cases(2_100, seed=1) if case.encoding == encoding and case.leak(nothing)]

    assert len(leaking) == 2_100 // len(ENCODINGS)


def disguised(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """A value among beginnings and ends of itself: (the value, the stream's output in one piece, and in several)."""
    rng = random.Random(seed)
    for _ in range(count):
        value = rng.choice((some(rng, "ab", 6, 12), some(rng, "abc", 60, 200), some(rng, WORDS, 6, 40)))
        patterns = Patterns([value, value[len(value) // 2 :] + some(rng, "ab", 3, 9)])
        parts = [value[: rng.randrange(len(value))], value[rng.randrange(len(value)) :], value, some(rng, "ab\n", 0, 9)]
        text = "".join(rng.choices(parts, k=6))
        yield value, "".join(fed(Masker(patterns), [text])), "".join(fed(Masker(patterns), split(rng, text + "\n")))


def test_no_split_changes_what_is_shown_of_values_that_begin_again_and_again() -> None:
    shown = [
        (whole, in_pieces.removesuffix("\n"))
        for _, whole, in_pieces in disguised(3_000, seed=2)
        if not whole.endswith(HIDDEN)  # At the very end a value that only began is hidden, before a newline it is not.
    ]

    assert [(whole, in_pieces) for whole, in_pieces in shown if whole != in_pieces] == []
    assert len(shown) > 500


def test_a_value_among_beginnings_and_ends_of_itself_is_hidden() -> None:
    assert [value for value, whole, in_pieces in disguised(3_000, seed=3) if value in whole or value in in_pieces] == []


def test_no_value_of_random_length_gets_through_the_cuts_of_very_long_lines() -> None:
    rng = random.Random(4)
    value = some(rng, WORDS, 300, 300)
    fillings = [some(rng, AROUND[:3], n, n) for n in range(MAX_LINE_CHARS - 310, MAX_LINE_CHARS + 10, 7)]

    shown = ["".join(fed(LineMasker(Patterns([value])), split(rng, text + value + text))) for text in fillings]

    assert [line for line in shown if set(line) - set(AROUND + HIDDEN)] == []
