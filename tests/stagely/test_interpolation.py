from __future__ import annotations

import pytest

from stagely.errors import SpecInvalid
from stagely.interpolation import interpolate, read_env_file

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
