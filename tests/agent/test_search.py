"""The index finds what comparing at every place finds, whatever the lengths, the alphabet and the place."""

from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.search import SHORTEST_CHARS, Index

NARROW = "abß漢😀?"  # Texts that begin again and again, and characters that look alike to the sieves.


def compared(texts: Collection[str], text: str) -> list[tuple[int, int]]:
    found = ((begin, [len(one) for one in texts if text.startswith(one, begin)]) for begin in range(len(text)))
    return [(begin, begin + max(sizes)) for begin, sizes in found if sizes]


def begun(texts: Collection[str], text: str) -> int:
    ends = (at for at in range(len(text)) if "\n" not in text[at:])
    return next((at for at in ends if any(one != text[at:] and one.startswith(text[at:]) for one in texts)), len(text))


needles = st.sets(st.text(NARROW, min_size=SHORTEST_CHARS, max_size=20), max_size=6)


@settings(max_examples=1_000, deadline=None)
@given(needles, st.lists(st.text(NARROW + "\n", max_size=30)))
def test_it_finds_what_comparing_at_every_place_finds(texts: set[str], around: list[str]) -> None:
    text = "".join(part + one for part in around for one in sorted(texts))

    index = Index(texts)

    assert index.hits(text) == compared(texts, text)
    assert index.begun_at(text) == begun(texts, text)


def test_a_text_of_any_length_is_found_at_any_place() -> None:
    texts = ["".join(chr(0x100 * (size % 2) + 65 + at) for at in range(size)) for size in range(SHORTEST_CHARS, 30)]
    places = [(one, before, behind) for one in texts for before in range(17) for behind in range(9)]

    missed = [
        (one, before, behind)
        for one, before, behind in places
        if (before, before + len(one)) not in Index([one]).hits("." * before + one + "." * behind)
    ]

    assert missed == []


def test_without_texts_nothing_is_found() -> None:
    assert Index([]).hits("anything at all") == []
    assert Index([]).begun_at("anything at all") == 15
