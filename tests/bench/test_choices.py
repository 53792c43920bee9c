"""Names on a bench's command line."""

from __future__ import annotations

import argparse

import pytest

from bench.choices import choices


def test_names_are_divided_by_commas_and_keep_their_order() -> None:
    assert choices("scenario", ("herd", "flood"))("flood,herd") == ["flood", "herd"]


@pytest.mark.parametrize("text", ["flod", "herd,flod", "flod,herd"])
def test_unknown_name_is_said_with_those_that_would_do(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="unknown scenario 'flod': choose from herd, flood"):
        choices("scenario", ("herd", "flood"))(text)


def test_no_name_is_an_unknown_one() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="unknown target ''"):
        choices("target", ("bare",))("")
