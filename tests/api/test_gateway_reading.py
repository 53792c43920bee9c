"""The gateway reads LOGs by another parser than agents; nobody may notice but by the time it takes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from agent.protocol import Log, ProtocolError, ToCore, decode_to_core, encode
from api.gateway import reading
from tests.agent.hostile import PIECES, a_message, spoil

PREFIX = '{"type":"LOG","seq":7,"command_id":"run-1/b-1/1","stream":"build/api","data":'
TEXTS = (
    '""',
    '"x"',
    '"one\\ntwo"',
    '"\\ud83d\\ude00"',
    '"ü✓😀"',
    '"\\u0041\\/\\"\\\\"',
    '"\\ud800"',
    '"\\u0000"',
    '"\x7f\ufeff"',
)
TAILS = ("}", "} ", " }", "}}", "]", "", ',"data":"y"}', ',"x":1}', '"}', "\\}", "}\n", "\x00}")


def outcome(decode: Callable[[str], ToCore], text: str) -> object:
    try:
        return decode(text)
    except ProtocolError as error:
        return str(error)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("data", [*TEXTS, *(f'"a{piece}b"' for piece in PIECES), "1", "null", '["x"]', "", '"', " "])
def test_log_is_read_as_the_agent_would_read_it(data: str, tail: str) -> None:
    text = f"{PREFIX}{data}{tail}"

    assert outcome(reading.decode, text) == outcome(decode_to_core, text)


@pytest.mark.parametrize(
    "seq", ["0", "-1", "01", "1.0", "1e2", "9" * 18, "9" * 19, "9" * 5000, '"7"', "true", " 7", "٣"]
)
def test_number_of_a_log_is_read_as_the_agent_would_read_it(seq: str) -> None:
    text = f'{PREFIX.replace("7", seq, 1)}"x"}}'

    assert outcome(reading.decode, text) == outcome(decode_to_core, text)


def test_spoilt_logs_are_read_as_the_agent_would_read_them() -> None:
    rng, kinds = random.Random(20261126), Counter[str]()

    for _ in range(20_000):
        text = spoil(a_message(Log, rng), rng).decode("utf-8", "surrogateescape")
        ours, theirs = outcome(reading.decode, text), outcome(decode_to_core, text)
        assert ours == theirs, text
        kinds[type(theirs).__name__] += 1

    assert min(kinds["Log"], kinds["str"]) > 1000


def test_plain_log_does_not_take_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "decode_to_core", lambda text: None)
    log = Log(3, "run-1/b-1/1", "service/web", "12:00 GET /\n✓\n")

    assert reading.decode(encode(log)) == log
