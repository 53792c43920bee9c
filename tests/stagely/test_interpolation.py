from __future__ import annotations

import pytest

from stagely.errors import SpecInvalid
from stagely.interpolation import MAX_ENV_FILE, TooLong, interpolate, read_env_file

VARIABLES = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${A}", "one-one"),
        ("$$A", "$A"),
        ("${NONE}", ""),
        ("${NONE:-d}${EMPTY:-d}${EMPTY-d}", "dd"),
        ("${A:+yes}${NONE:+yes}${EMPTY+set}", "yesset"),
        ("${NONE:-${A}}", "one"),
        ("${NONE-a}b}", "ab}"),
        ("${A:?never}", "one"),
    ],
)
def test_interpolation_follows_the_compose_specification(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES) == expected


@pytest.mark.parametrize("text", ["${A", "${", "$", "${A!x}", "${NONE?}", "${EMPTY:?gone}", "${1}"])
def test_what_compose_refuses_is_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        interpolate(text, VARIABLES)


def test_an_env_file_gives_its_variables() -> None:
    text = "# comment\nA=1\nexport B='two words' \nC=\"x#y\"\nD=plain # comment\nnonsense\nE=\n1F=x\n"

    assert read_env_file(text) == {"A": "1", "B": "two words", "C": "x#y", "D": "plain", "E": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('A="1.2" # the tag', {"A": "1.2"}),
        ("A='1.2' # the tag", {"A": "1.2"}),
        ("A: 1", {"A": "1"}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=a\nB=http://${A}/\nC=\"$A\"\nD='$A'", {"A": "a", "B": "http://a/", "C": "a", "D": "$A"}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        (r'A="a\n\"b\" \$c"', {"A": 'a\n"b" $c'}),
        ("A=pa$\nB=${\n", {"A": "pa$", "B": "${"}),
        ("A='open\nB=2", {"A": "'open", "B": "2"}),
        ("A= # nothing\nB=x#y", {"A": "", "B": "x#y"}),
    ],
)
def test_an_env_file_is_read_as_compose_reads_it(text: str, expected: dict[str, str]) -> None:
    assert read_env_file(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("A=xxxxxxxx\n" + "A=$A$A\n" * 60, id="doubling"),
        pytest.param(f"A={'x' * 100_000}\n" + "".join(f"B{i}=$A\n" for i in range(9_000)), id="copies"),
        pytest.param("A=" + "x" * MAX_ENV_FILE, id="large"),
    ],
)
def test_an_env_file_that_becomes_too_much_is_refused(text: str) -> None:
    with pytest.raises(TooLong):
        read_env_file(text)


@pytest.mark.parametrize("text", ["$A" * 400_000, "${B:-" * 1000 + "}" * 1000])
def test_text_that_becomes_too_much_is_refused(text: str) -> None:
    with pytest.raises(TooLong):
        interpolate(text, VARIABLES)
