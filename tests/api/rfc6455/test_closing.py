"""The closing handshake, begun by either side. Source: RFC 6455 sections 5.5.1, 7.1 and 7.4."""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import (
    CLOSE,
    TEXT,
    Said,
    bytewise,
    close,
    connected,
    frame,
    head,
    parse_frames,
    ping,
    talk,
    text,
)

VALID = [*range(1000, 1004), *range(1007, 1015), 3000, 3001, 3999, 4000, 4001, 4009, 4999]
INVALID = [0, 1, 2, 100, 500, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1100, 1999, 2000, 2999, 5000, 5001, 9999, 65_535]
REASONS = {
    "short": "bye",
    "umlaut": "tschüß",
    "euro": "€" * 41,
    "face": "😀" * 30,
    "nul": "a\x00b",
    "122-bytes": "x" * 122,
    "123-bytes": "x" * 123,
}
BAD_REASONS = {
    "lone-continuation": b"\x80",
    "cut-2": b"bye\xc3",
    "cut-3": b"\xe2\x82",
    "cut-4": b"\xf0\x9f\x98",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "ff": b"\xff",
    "latin-1": b"tsch\xfc\xdf",
    "last-byte": b"x" * 122 + b"\xff",
}
BEHIND = {
    "text": text("late"),
    "ping": ping("late"),
    "close": close(1001),
    "reserved-opcode": frame(3),
    "reserved-bit": b"\xff",
    "unmasked": frame(TEXT, "late", mask=None),
    "length-not-minimal": head(TEXT, 1, form=8),
    "noise": b"\x00\x01\x02" * 1000,
}
OURS: list[Said] = [("close", 4001)]


@pytest.mark.parametrize("code", VALID)
def test_valid_code_is_sent_back(port: int, code: int) -> None:
    answer = talk(port, [close(code)])

    assert answer.frames == [(CLOSE, code.to_bytes(2))]


@pytest.mark.parametrize("code", VALID)
def test_valid_code_and_its_reason_are_sent_back_byte_by_byte(port: int, code: int) -> None:
    answer = talk(port, bytewise(close(code, "bye")))

    assert answer.frames == [(CLOSE, code.to_bytes(2) + b"bye")]


@pytest.mark.parametrize("code", INVALID)
def test_invalid_code_is_refused(port: int, code: int) -> None:
    answer = talk(port, [close(code)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("code", INVALID)
def test_invalid_code_with_a_reason_is_refused_byte_by_byte(port: int, code: int) -> None:
    answer = talk(port, bytewise(close(code, "bye")))

    assert answer.said == [("close", 1002)]


def test_empty_close_is_sent_back_empty(port: int) -> None:
    assert talk(port, [close(None)]).frames == [(CLOSE, b"")]


@pytest.mark.parametrize("byte", [b"\x00", b"\x03", b"\xff"])
def test_close_of_one_byte_is_refused(port: int, byte: bytes) -> None:
    assert talk(port, [frame(CLOSE, byte)]).said == [("close", 1002)]


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_reason_is_sent_back(port: int, reason: str) -> None:
    answer = talk(port, [close(1000, reason)])

    assert answer.frames == [(CLOSE, b"\x03\xe8" + reason.encode())]


@pytest.mark.parametrize("reason", BAD_REASONS.values(), ids=BAD_REASONS)
def test_reason_that_is_not_utf8_is_refused(port: int, reason: bytes) -> None:
    answer = talk(port, [close(1000, reason)])

    assert answer.said == [("close", 1007)]


@pytest.mark.parametrize("size", [124, 125, 254, 65_534])
def test_reason_that_is_too_long_is_refused(port: int, size: int) -> None:
    answer = talk(port, [close(1000, "x" * size)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_follows_a_close_is_thrown_away(port: int, behind: bytes) -> None:
    answer = talk(port, [close(1000) + behind])

    assert answer.said == [("close", 1000)]


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_follows_a_close_later_is_thrown_away(port: int, behind: bytes) -> None:
    answer = talk(port, [close(1000), *bytewise(behind)])

    assert answer.said == [("close", 1000)]


@pytest.mark.parametrize(("before", "kind"), [(text("a"), "text"), (ping("a"), "pong")], ids=["text", "ping"])
def test_what_came_before_a_close_is_answered(port: int, before: bytes, kind: str) -> None:
    answer = talk(port, [before + close(1000)])

    assert answer.said == [(kind, b"a"), ("close", 1000)]


@pytest.mark.parametrize("code", [1000, 1008, 1012, 1013, 4001, 4003, 4009])
def test_gateway_closes_with_its_code_and_waits_for_the_agents(port: int, code: int) -> None:
    with connected(port) as peer:
        peer.send([text(f"close {code} because")])
        said = peer.read_bytes(2 + 2 + len("because"))
        peer.send([close(code)])

        assert parse_frames(said) == [(CLOSE, code.to_bytes(2) + b"because")]
        assert peer.read_rest() == b""


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_agent_may_close_with_a_code_of_its_own_behind_ours(port: int, code: int) -> None:
    assert talk(port, [text("close 4001 bye") + close(code)]).said == OURS


@pytest.mark.parametrize(
    "last",
    [close(1005), frame(CLOSE, b"\x03"), close(1000, b"\xff"), frame(3), b"\xf1", head(TEXT, 1, form=2), frame(0, "a")],
    ids=["code", "one-byte", "reason", "opcode", "reserved-bit", "length", "continuation"],
)
def test_gateway_that_closed_ends_on_a_bad_frame_without_a_second_close(port: int, last: bytes) -> None:
    assert talk(port, [text("close 4001 bye") + last]).said == OURS


@pytest.mark.parametrize(
    "between", [text("late"), text(b"\xff"), frame(2, "late"), frame(10)], ids=["text", "utf8", "binary", "pong"]
)
def test_gateway_that_closed_takes_nothing_more(port: int, between: bytes) -> None:
    assert talk(port, [text("close 4001 bye") + between + close()]).said == OURS


def test_gateway_that_closed_still_answers_pings_until_the_agent_closes(port: int) -> None:
    answer = talk(port, [text("close 4001 bye") + ping("a") + close() + ping("b")])

    assert answer.said == [*OURS, ("pong", b"a")]


def test_gateway_that_closed_ends_with_the_agents_stream(port: int) -> None:
    assert talk(port, [text("close 4001 bye")], ends=True).said == OURS


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("x" * 123, 123), ("x" * 124, 123), ("x" * 1000, 123), ("é" * 62, 122), ("€" * 42, 123), ("😀" * 31, 120)],
    ids=["fits", "one-over", "far-over", "umlauts", "euros", "faces"],
)
def test_reason_of_ours_is_cut_between_characters(port: int, reason: str, kept: int) -> None:
    answer = talk(port, [text(f"close 4001 {reason}") + close()])

    assert answer.frames == [(CLOSE, (4001).to_bytes(2) + reason.encode()[:kept])]
