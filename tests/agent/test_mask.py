"""Secret values never leave the machine in a log, wherever the output is cut."""

import base64
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mask import MAX_LINE_CHARS, PIECE_CHARS, LineMasker, Masker, Patterns

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


@pytest.mark.parametrize(
    "written",
    [
        "7330637233742f76616c75652b31",
        "7330637233742F76616C75652B31",
        "s0cr3t%2Fvalue%2B1",
        "s0cr3t%2fvalue%2b1",
        "s0cr3t/value%2B1",
        "s0cr3t\\/value+1",
    ],
    ids=["hex", "HEX", "url", "lower-case url", "path", "json of PHP"],
)
def test_other_ways_to_write_a_value_are_hidden(written: str) -> None:
    assert masked(f"<{written}>\n", "s0cr3t/value+1") == "<***>\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('say "hi"\there', '{"key": "say \\"hi\\"\\there"}'),
        ("straße-und-öl", '{"key": "stra\\u00dfe-und-\\u00f6l"}'),
        ("<tag> & more", '{"key": "\\u003ctag\\u003e \\u0026 more"}'),
        ("first line\nsecond", '{"key": "first line\\nsecond"}'),
    ],
    ids=["quotes", "ascii", "Go", "lines"],
)
def test_a_value_inside_json_is_hidden(value: str, written: str) -> None:
    assert masked(written + "\n", value) == '{"key": "***"}\n'


def test_a_value_in_a_shells_trace_is_hidden() -> None:
    assert masked("+ login 'it'\\''s mine'\n", "it's mine") == "+ login '***'\n"


def test_a_value_in_xml_is_hidden() -> None:
    assert masked('<a key="fish&amp;&quot;chips&quot;"/>\n', 'fish&"chips"') == '<a key="***"/>\n'


def test_base64_wrapped_by_a_tool_is_hidden() -> None:
    value = "".join(f"{n:04}" for n in range(40))

    assert masked(base64.encodebytes(value.encode()).decode(), value) == "***\n***\n***Q==\n"


def test_values_that_overlap_are_hidden_together() -> None:
    assert masked("<abcdefghijkl>\n", "abcdefgh", "efghijkl") == "<***>\n"


def test_values_side_by_side_are_one_gap() -> None:
    patterns = Patterns(["first-value", "second-value"])

    assert patterns.hide("<first-valuesecond-value>") == "<***>"


def test_the_longer_of_two_values_that_begin_alike_is_hidden() -> None:
    assert masked("<token-12 token-1234>\n", "token-12", "token-1234", cuts=(9, 18)) == "<*** ***>\n"


def test_every_whole_piece_of_a_long_value_is_hidden_without_the_rest() -> None:
    value = "".join(f"{n:04}" for n in range(100))

    assert masked(f"<{value[:PIECE_CHARS]}> <{value[PIECE_CHARS:]}>\n", value) == "<***> <***>\n"


def test_short_lines_of_a_value_are_left_alone_and_the_others_hidden() -> None:
    assert masked("{\n  key: abcdef\n}\n", "{\n  key: abcdef\n}") == "{\n  ***\n}\n"


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    assert masked("a s3cr3t-value b\n", "  s3cr3t-value\n") == "a *** b\n"


def test_text_that_begins_no_value_is_not_held_back() -> None:
    masker = Masker(Patterns([SECRET]))

    assert [masker.feed("no value "), masker.feed("s3cr"), masker.feed("3d s"), masker.feed("!")] == [
        "no value ", "", "s3cr3d ", "s!",
    ]  # fmt: skip


def test_a_newline_lets_go_of_what_was_held_back() -> None:
    masker = Masker(Patterns([SECRET]))

    assert [masker.feed("s3cr"), masker.feed("\n")] == ["", "s3cr\n"]


def test_a_value_that_only_began_when_its_writer_was_killed_is_hidden() -> None:
    assert masked("login s3cr3t/val", SECRET) == "login ***\n"


def test_the_beginning_of_an_ordinary_word_at_the_end_is_shown() -> None:
    assert masked("login s3", SECRET) == "login s3\n"


def test_a_value_added_while_its_line_is_written_is_hidden_in_it() -> None:
    patterns = Patterns()
    masker = LineMasker(patterns)

    before = masker.feed(f"login {SECRET}")
    patterns.add([SECRET])

    assert before + masker.feed(" done\n") == "login *** done\n"


class CountingPatterns(Patterns):
    """Counts the characters that are looked at."""

    looked_at = 0

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        self.looked_at += len(text)
        return super().spans(text)


def test_a_long_value_that_comes_in_crumbs_is_not_looked_at_from_its_beginning_each_time() -> None:
    patterns = CountingPatterns(["ab" * 20_000])
    masker = Masker(patterns)

    shown = "".join(masker.feed("a" if at % 2 == 0 else "b") for at in range(40_000)) + masker.finish()

    assert shown == "***"
    assert patterns.looked_at <= 40_000 * PIECE_CHARS


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
