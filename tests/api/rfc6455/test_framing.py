"""Heads of frames: opcodes, masks, reserved bits, lengths. Source: RFC 6455 section 5.2.

Streams that are refused end where the refusal is due: a case that waits for one byte more fails by its deadline.
"""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import (
    BINARY,
    CLOSE,
    CONT,
    NAMES,
    PING,
    PONG,
    TEXT,
    bytewise,
    close,
    fragments,
    frame,
    head,
    ping,
    talk,
    text,
)

LIMIT = 256 * 1024
OPCODES = list(NAMES)
RESERVED_OPCODES = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128, 255, 256, 257, 1000, 4096, 32_767, 32_768]
LONG = [65_534, 65_535, 65_536, 65_537, 131_071, 131_072, 200_000, LIMIT - 1, LIMIT]
LONGER_FORMS = [(2, 0), (2, 1), (2, 64), (2, 124), (2, 125), (8, 0), (8, 1), (8, 125), (8, 126), (8, 127), (8, 65_535)]
TOO_LONG = [LIMIT + 1, LIMIT + 2, 2**20, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def named(opcode: object) -> str:
    return NAMES.get(opcode, str(opcode)) if isinstance(opcode, int) else str(opcode)


@pytest.mark.parametrize("is_final", [True, False], ids=["final", "not-final"])
@pytest.mark.parametrize("opcode", RESERVED_OPCODES)
def test_reserved_opcode_is_refused(port: int, opcode: int, is_final: bool) -> None:
    answer = talk(port, [head(opcode, 0, fin=is_final)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", OPCODES, ids=named)
def test_reserved_bits_are_refused_by_the_first_byte(port: int, opcode: int, rsv: int) -> None:
    answer = talk(port, [head(opcode, 0, rsv=rsv)[:1]])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [CONT, TEXT, PING], ids=named)
def test_reserved_bits_within_a_message_are_refused_by_the_first_byte(port: int, opcode: int, rsv: int) -> None:
    begun = frame(TEXT, "a", fin=False)

    answer = talk(port, [begun + head(opcode, 0, rsv=rsv)[:1]])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("rsv", [1, 2, 4])
def test_reserved_bits_of_a_frame_behind_others_are_refused(port: int, rsv: int) -> None:
    answer = talk(port, [text("a") + ping("b") + frame(TEXT, "c", rsv=rsv)])

    assert answer.said == [("text", b"a"), ("pong", b"b"), ("close", 1002)]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_536])
@pytest.mark.parametrize("opcode", OPCODES, ids=named)
def test_unmasked_frame_is_refused_by_its_first_two_bytes(port: int, opcode: int, length: int) -> None:
    answer = talk(port, [head(opcode, length, is_masked=False)[:2]])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("length", [1, 126, LIMIT, LIMIT + 1, 2**63])
@pytest.mark.parametrize("opcode", OPCODES, ids=named)
def test_unmasked_frame_is_refused_for_that_whatever_its_length(port: int, opcode: int, length: int) -> None:
    answer = talk(port, [head(opcode, length, is_masked=False)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize(
    "mask",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\1\2\3\4",
        b"\x80\0\0\0",
        b"\0\0\0\x80",
        b"aaaa",
        b"\r\n\r\n",
        b"\x81\x85\0\0",
    ],
)
@pytest.mark.parametrize("payload", ["", "a", "abc", "hello", "a longer one, of more than four masks"])
def test_every_mask_is_taken_off(port: int, mask: bytes, payload: str) -> None:
    answer = talk(port, [frame(TEXT, payload, mask=mask) + close()])

    assert answer.said == [("text", payload.encode()), ("close", 1000)]


@pytest.mark.parametrize("length", LENGTHS + LONG)
def test_text_of_any_length_up_to_the_limit_is_taken(port: int, length: int) -> None:
    answer = talk(port, [text("x" * length), close()])

    assert answer.said == [("text", b"x" * length), ("close", 1000)]


@pytest.mark.parametrize("length", [length for length in LENGTHS if length < 1000])
def test_text_of_any_length_is_taken_byte_by_byte(port: int, length: int) -> None:
    answer = talk(port, bytewise(text("x" * length) + close()))

    assert answer.said == [("text", b"x" * length), ("close", 1000)]


@pytest.mark.parametrize(("form", "length"), LONGER_FORMS)
@pytest.mark.parametrize("opcode", OPCODES, ids=named)
def test_length_in_a_longer_form_than_it_needs_is_refused_by_the_head(
    port: int, opcode: int, form: int, length: int
) -> None:
    answer = talk(port, [head(opcode, length, form=form)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize(("form", "length"), LONGER_FORMS)
def test_length_in_a_longer_form_is_refused_byte_by_byte(port: int, form: int, length: int) -> None:
    answer = talk(port, bytewise(head(TEXT, length, form=form)))

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize(("form", "length"), [(2, 1), (8, 1), (8, 126), (8, 65_535)])
def test_length_in_a_longer_form_is_refused_behind_good_frames(port: int, form: int, length: int) -> None:
    bad = head(TEXT, length, form=form) + b"\0\0\0\0" + b"x" * length

    answer = talk(port, [text("a") + ping("b") + bad + text("c")])

    assert answer.said == [("text", b"a"), ("pong", b"b"), ("close", 1002)]


@pytest.mark.parametrize(("form", "length"), [(2, 1), (8, 1), (8, 126), (8, 65_535)])
def test_length_in_a_longer_form_is_refused_within_a_message(port: int, form: int, length: int) -> None:
    answer = talk(port, [frame(TEXT, "a", fin=False) + head(CONT, length, form=form)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("length", TOO_LONG)
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=named)
def test_frame_over_the_limit_is_refused_by_its_head(port: int, opcode: int, length: int) -> None:
    answer = talk(port, [head(opcode, length)])

    assert answer.said == [("close", 1009)]


@pytest.mark.parametrize("length", [LIMIT + 1, 2**20])
def test_frame_over_the_limit_is_answered_though_all_of_it_was_sent(port: int, length: int) -> None:
    answer = talk(port, [text("x" * length), close()])

    assert answer.said == [("close", 1009)]


@pytest.mark.parametrize("payload", [b"", b"a", b"\xff", b"x" * 126, b"x" * 65_536], ids=len)
def test_binary_frame_is_refused(port: int, payload: bytes) -> None:
    answer = talk(port, [frame(BINARY, payload)])

    assert answer.said == [("close", 1003)]


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_frames_in_one_segment_are_answered_in_their_order(port: int, count: int) -> None:
    answer = talk(port, [b"".join(text(f"{n}") + ping(f"{n}") for n in range(count)) + close()])

    assert answer.said == [(kind, b"%d" % n) for n in range(count) for kind in ("text", "pong")] + [("close", 1000)]


@pytest.mark.parametrize("cut", range(1, 24))
def test_two_frames_are_taken_wherever_the_network_cuts_them(port: int, cut: int) -> None:
    stream = text("hello") + ping("abc") + close()

    answer = talk(port, [stream[:cut], stream[cut:]])

    assert answer.said == [("text", b"hello"), ("pong", b"abc"), ("close", 1000)]


@pytest.mark.parametrize(
    "bad",
    [frame(3), frame(TEXT, "a", mask=None), frame(TEXT, "a", rsv=4), head(TEXT, 1, form=2), frame(CONT, "a")],
    ids=["opcode", "unmasked", "reserved-bit", "length", "continuation"],
)
@pytest.mark.parametrize(
    "behind",
    [text("a"), ping("a"), close(), frame(3), b"\xff" * 100, b"\0" * 300_000],
    ids=["text", "ping", "close", "opcode", "noise", "zeros"],
)
def test_nothing_is_answered_behind_a_refused_frame(port: int, bad: bytes, behind: bytes) -> None:
    answer = talk(port, [bad + behind])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize(
    "behind",
    [text("a"), ping("a"), close(), frame(3), frame(BINARY)],
    ids=["text", "ping", "close", "opcode", "binary"],
)
@pytest.mark.parametrize(
    ("bad", "code"),
    [(frame(BINARY, "a"), 1003), (text(b"\xff"), 1007), (head(TEXT, LIMIT + 1), 1009)],
    ids=["binary", "utf8", "size"],
)
def test_nothing_is_answered_behind_a_refused_message(port: int, bad: bytes, code: int, behind: bytes) -> None:
    answer = talk(port, [bad + behind])

    assert answer.said == [("close", code)]


@pytest.mark.parametrize("size", range(1, 14))
def test_stream_that_ends_within_a_frame_is_not_answered(port: int, size: int) -> None:
    answer = talk(port, [frame(TEXT, "x" * 126)[:size]], ends=True)

    assert answer.said == []


@pytest.mark.parametrize("opcode", [TEXT, PING, PONG, CLOSE], ids=named)
def test_stream_that_ends_behind_a_head_is_not_answered(port: int, opcode: int) -> None:
    answer = talk(port, [text("a") + head(opcode, 5)], ends=True)

    assert answer.said == [("text", b"a")]


def test_stream_that_ends_between_messages_is_not_answered(port: int) -> None:
    assert talk(port, [fragments("a", "b")], ends=True).said == [("text", b"ab")]
