"""Whatever comes over the wire is either a message or one named error; nothing bad gets in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from agent.protocol import (
    TO_AGENT,
    TO_CORE,
    Message,
    ProtocolError,
    decode_to_agent,
    decode_to_core,
    encode,
)
from tests.agent.hostile import a_message, spoil

CODES = {"bad_json", "bad_value", "missing_field", "unknown_field", "unknown_type"}
LONGEST_ERROR = 500  # It travels in a REFUSED and stands in a line of a log.

Decode = Callable[[str], Message]
DECODERS: tuple[tuple[dict[str, type[Message]], Decode], ...] = (
    ({**TO_CORE}, decode_to_core),
    ({**TO_AGENT}, decode_to_agent),
)


def frames(count: int, seed: int) -> Iterator[tuple[Decode, bytes]]:
    rng = random.Random(seed)
    for _ in range(count):
        messages, decode = rng.choice(DECODERS)
        yield decode, spoil(a_message(rng.choice(list(messages.values())), rng), rng)


def outcome(decode: Decode, raw: bytes) -> str:
    """What became of a frame: "accepted", the error's code, or "WRONG" and why."""
    # Both ends refuse what is no UTF-8 before they decode it; here wrong bytes come further, as lone surrogates.
    text = raw.decode("utf-8", "surrogateescape")
    try:
        message = decode(text)
    except ProtocolError as error:
        return _judged_error(error)
    except BaseException as error:
        return f"WRONG: {type(error).__name__} for {text[:300]!r}"
    try:
        return "accepted" if decode(encode(message)) == message else f"WRONG: changed, {text[:300]!r}"
    except (ValueError, ProtocolError) as error:
        return f"WRONG: accepted, but {error} for {text[:300]!r}"


def _judged_error(error: ProtocolError) -> str:
    text = str(error)
    if error.code not in CODES or len(text) > LONGEST_ERROR or not text.isprintable():
        return f"WRONG: the error {error.code} says {text[:600]!r}"
    return error.code


def outcomes(count: int, seed: int) -> Counter[str]:
    return Counter(outcome(decode, raw) for decode, raw in frames(count, seed))


def wrong(found: Counter[str]) -> list[str]:
    return [text for text in found if text.startswith("WRONG")]


def test_ten_thousand_hostile_frames_are_messages_or_named_errors() -> None:
    found = outcomes(10_000, seed=20261126)

    assert wrong(found) == []
    assert set(found) == {"accepted", *CODES}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_hostile_frames_are_messages_or_named_errors() -> None:
    found = outcomes(100_000, seed=5)

    assert wrong(found) == []
    assert min(found[code] for code in ("accepted", *CODES)) > 500


@pytest.mark.parametrize("name", [*TO_CORE, *TO_AGENT])
def test_every_well_formed_message_is_the_same_after_its_way_over_the_wire(name: str) -> None:
    rng = random.Random(name)
    kind: type[Message] = {**TO_CORE, **TO_AGENT}[name]
    decode: Decode = decode_to_core if name in TO_CORE else decode_to_agent
    messages = [a_message(kind, rng) for _ in range(200)]

    assert [decode(encode(message)) for message in messages] == messages
