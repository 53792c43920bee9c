"""Messages in several frames. Source: RFC 6455 section 5.4."""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Said,
    bytewise,
    close,
    fragments,
    frame,
    ping,
    talk,
    text,
)

BEGUN = frame(TEXT, "a", fin=False)
LAST = frame(CONT, "b")

WHOLE = {
    "two": (fragments("a", "b"), b"ab"),
    "three": (fragments("a", "b", "c"), b"abc"),
    "ten": (fragments(*"0123456789"), b"0123456789"),
    "thousand": (fragments(*["x"] * 1000), b"x" * 1000),
    "first-empty": (fragments("", "a"), b"a"),
    "middle-empty": (fragments("a", "", "b"), b"ab"),
    "last-empty": (fragments("a", ""), b"a"),
    "two-empty": (fragments("", ""), b""),
    "ten-empty": (fragments(*[""] * 10), b""),
    "short-and-long": (fragments("a", "x" * 126, "b"), b"a" + b"x" * 126 + b"b"),
    "two-long": (fragments("x" * 65_535, "y" * 65_536), b"x" * 65_535 + b"y" * 65_536),
    "other-masks": (frame(TEXT, "a", fin=False, mask=b"1234") + frame(CONT, "b", mask=b"9876"), b"ab"),
}

BETWEEN = {
    "ping": (ping("p"), [("pong", b"p")]),
    "empty-ping": (ping(), [("pong", b"")]),
    "longest-ping": (ping("p" * 125), [("pong", b"p" * 125)]),
    "binary-ping": (ping(b"\xff\x00"), [("pong", b"\xff\x00")]),
    "three-pings": (ping("1") + ping("2") + ping("3"), [("pong", b"1"), ("pong", b"2"), ("pong", b"3")]),
    "pong": (frame(PONG, "p"), []),
    "pong-and-ping": (frame(PONG, "p") + ping("q"), [("pong", b"q")]),
}

BROKEN = {
    "continuation-of-nothing": frame(CONT, "a"),
    "empty-continuation-of-nothing": frame(CONT),
    "open-continuation-of-nothing": frame(CONT, "a", fin=False),
    "continuation-behind-a-pong": frame(PONG) + frame(CONT, "a"),
    "text-within": BEGUN + text("b"),
    "open-text-within": BEGUN + frame(TEXT, "b", fin=False),
    "empty-text-within": BEGUN + text(""),
    "text-within-later": BEGUN + frame(CONT, "b", fin=False) + text("c"),
    "binary-within": BEGUN + frame(BINARY, "b"),
    "open-binary-within": BEGUN + frame(BINARY, "b", fin=False),
    "close-within": BEGUN + close(1000),
    "empty-close-within": BEGUN + close(None),
    "close-within-later": BEGUN + frame(CONT, "b", fin=False) + close(1000),
    "reserved-opcode-within": BEGUN + frame(3),
    "unmasked-within": BEGUN + frame(CONT, "b", mask=None),
    "open-ping": frame(PING, fin=False),
    "open-ping-with-payload": frame(PING, "a", fin=False),
    "open-pong": frame(PONG, fin=False),
    "open-close": frame(CLOSE, b"\x03\xe8", fin=False),
    "open-ping-within": BEGUN + frame(PING, "a", fin=False),
    "open-pong-within": BEGUN + frame(PONG, "a", fin=False),
    "open-close-within": BEGUN + frame(CLOSE, b"\x03\xe8", fin=False),
}

# Here an empty message came before, and is answered.
BROKEN_BEHIND = {
    "behind-a-message": text("") + frame(CONT, "a"),
    "behind-fragments": fragments("", "") + frame(CONT, "a"),
    "behind-a-message-with-a-pong": fragments("", "") + frame(PONG) + frame(CONT, "a", fin=False),
}


@pytest.mark.parametrize(("stream", "whole"), WHOLE.values(), ids=WHOLE)
def test_fragments_are_one_message(port: int, stream: bytes, whole: bytes) -> None:
    answer = talk(port, [stream, close()])

    assert answer.said == [("text", whole), ("close", 1000)]


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in ("thousand", "two-long")])
def test_fragments_are_one_message_byte_by_byte(port: int, name: str) -> None:
    stream, whole = WHOLE[name]

    answer = talk(port, bytewise(stream + close()))

    assert answer.said == [("text", whole), ("close", 1000)]


@pytest.mark.parametrize(("between", "said"), BETWEEN.values(), ids=BETWEEN)
def test_control_frames_between_fragments_are_answered_first(port: int, between: bytes, said: list[Said]) -> None:
    answer = talk(port, [with_between(between) + close()])

    assert answer.said == [*said, *said, ("text", b"ab"), ("close", 1000)]


@pytest.mark.parametrize(("between", "said"), BETWEEN.values(), ids=BETWEEN)
def test_control_frames_between_are_answered_first_byte_by_byte(port: int, between: bytes, said: list[Said]) -> None:
    answer = talk(port, bytewise(with_between(between) + close()))

    assert answer.said == [*said, *said, ("text", b"ab"), ("close", 1000)]


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_broken_order_of_frames_is_refused(port: int, stream: bytes) -> None:
    answer = talk(port, [stream])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN)
def test_broken_order_of_frames_is_refused_byte_by_byte(port: int, stream: bytes) -> None:
    answer = talk(port, bytewise(stream))

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("stream", BROKEN_BEHIND.values(), ids=BROKEN_BEHIND)
def test_continuation_of_a_finished_message_is_refused(port: int, stream: bytes) -> None:
    answer = talk(port, [stream])

    assert answer.said == [("text", b""), ("close", 1002)]


@pytest.mark.parametrize(
    "stream",
    [frame(BINARY, fin=False), frame(BINARY, "a", fin=False), fragments("a", "b", opcode=BINARY)],
    ids=["empty", "begun", "whole"],
)
def test_binary_fragments_are_refused_by_the_first(port: int, stream: bytes) -> None:
    answer = talk(port, [stream])

    assert answer.said == [("close", 1003)]


@pytest.mark.parametrize("count", [2, 5, 50])
def test_fragmented_messages_follow_each_other(port: int, count: int) -> None:
    answer = talk(port, [b"".join(fragments(f"{n}", ",") for n in range(count)), close()])

    assert answer.said == [*(("text", b"%d," % n) for n in range(count)), ("close", 1000)]


@pytest.mark.parametrize(
    "stream", [BEGUN, BEGUN + frame(CONT, "b", fin=False), BEGUN + frame(PONG)], ids=["one", "two", "pong"]
)
def test_message_that_is_never_finished_is_not_delivered(port: int, stream: bytes) -> None:
    answer = talk(port, [stream], ends=True)

    assert answer.said == []


def with_between(frames: bytes) -> bytes:
    """A message of three fragments, with these frames in both gaps."""
    return BEGUN + frames + frame(CONT, fin=False) + frames + LAST
