"""Secret values never leave the machine in a log, wherever the output is cut."""

import base64
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mask import MAX_LINE_CHARS, LineMasker, Patterns

SECRET = "s3cr3t/value+1"


def masked(text: str, *values: str, cuts: tuple[int, ...] = ()) -> str:
    masker = LineMasker(Patterns(values))
    pieces = [text[a:b] for a, b in pairwise((0, *sorted(cuts), len(text)))]
    return "".join(map(masker.feed, pieces)) + masker.finish()


def test_a_value_is_hidden() -> None:
    assert masked(f"password={SECRET}!\n", SECRET) == "password=***!\n"


def test_a_value_cut_in_the_middle_is_hidden() -> None:
    assert masked(f"x {SECRET} y\n", SECRET, cuts=(4, 9)) == "x *** y\n"


def test_lines_of_a_value_of_several_lines_are_hidden_one_by_one() -> None:
    assert masked("key: -----BEGIN KEY\nabcdefgh\n", "-----BEGIN KEY\nabcdefgh\n") == "key: ***\n***\n"


def test_base64_is_hidden_at_every_alignment() -> None:
    coded = [base64.b64encode(b"x" * n + b"hunter2hunter2" + b"y" * 5).decode() for n in (0, 1, 2)]

    hidden = [masked(f"{text}\n", "hunter2hunter2") for text in coded]

    # What is left depends on the neighbours as well: at most one character at each end says anything of the value.
    assert hidden == ["***J5eXl5eQ==\n", "eG***eXl5eXk=\n", "eHh***nl5eXl5\n"]


def test_short_values_are_left_alone_because_they_stand_in_ordinary_words() -> None:
    assert masked("true story\n", "true") == "true story\n"


def test_a_value_added_later_is_hidden_from_then_on() -> None:
    patterns = Patterns()
    masker = LineMasker(patterns)

    before = masker.feed(f"{SECRET}\n")
    patterns.add([SECRET])
    after = masker.feed(f"{SECRET}\n")

    assert (before, after) == (f"{SECRET}\n", "***\n")


def test_whoever_keeps_the_values_is_told_all_of_them_once() -> None:
    kept: list[frozenset[str]] = []
    patterns = Patterns(["first-value"], kept.append)

    patterns.add(["first-value"])
    patterns.add(["second-value"])

    assert kept == [frozenset({"first-value"}), frozenset({"first-value", "second-value"})]


def test_nul_and_carriage_returns_do_not_reach_the_core() -> None:
    assert masked("a\x00b\r\nc\r\n") == "a\ufffdb\nc\n"


def test_a_last_line_without_newline_gets_one() -> None:
    assert masked("end") == "end\n"


def test_a_very_long_line_comes_in_pieces_and_no_cut_gives_the_value_away() -> None:
    line = "x" * (MAX_LINE_CHARS - 5) + SECRET + "y" * MAX_LINE_CHARS * 2

    hidden = masked(line + "\n", SECRET, cuts=tuple(range(1000, len(line), 1000)))

    assert hidden.replace("\n", "") == "x" * (MAX_LINE_CHARS - 5) + "***" + "y" * MAX_LINE_CHARS * 2
    assert max(map(len, hidden.split("\n"))) <= MAX_LINE_CHARS + len(SECRET)


SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r*"), min_size=6, max_size=40)


@settings(max_examples=150, deadline=None)
@given(SECRETS, st.sets(st.integers(0, 200)), st.text(max_size=20), st.text(max_size=20))
def test_no_cut_gives_any_line_of_a_value_away(value: str, cuts: set[int], before: str, after: str) -> None:
    text = f"{before}{value}{after}\n"

    hidden = masked(text, value, cuts=tuple(cut for cut in cuts if cut < len(text)))

    lines = [line.strip() for line in value.split("\n") if len(line.strip()) >= 6]
    assert [line for line in lines if line in hidden] == []
