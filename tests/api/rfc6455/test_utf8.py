"""Texts are UTF-8, wherever frames and the network cut them. Source: RFC 6455 sections 5.6 and 8.1, RFC 3629."""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import CONT, TEXT, bytewise, close, fragments, frame, ping, talk, text

GOOD = {
    "first-of-2": "\u0080",
    "umlaut": "ü",
    "last-of-2": "\u07ff",
    "first-of-3": "\u0800",
    "euro": "€",
    "before-surrogates": "\ud7ff",
    "behind-surrogates": "\ue000",
    "replacement": "\ufffd",
    "noncharacter": "\ufffe",
    "last-of-3": "\uffff",
    "first-of-4": "\U00010000",
    "face": "😀",
    "last-of-all": "\U0010ffff",
    "mark": "\ufeffa",
    "nul": "a\x00b",
    "delete": "\x7f",
    "word": "Κόσμε",
    "family": "👩‍👧",
    "all-lengths": "aß水𝄞",
}

BAD = {
    "lone-80": b"\x80",
    "lone-bf": b"\xbf",
    "two-continuations": b"\x80\xbf",
    "cut-2": b"\xc3",
    "cut-3-by-1": b"\xe2\x82",
    "cut-3-by-2": b"\xe2",
    "cut-4-by-1": b"\xf0\x9f\x98",
    "cut-4-by-2": b"\xf0\x9f",
    "cut-4-by-3": b"\xf0",
    "cut-2-behind-text": b"hello\xc3",
    "cut-4-behind-text": b"hello\xf0\x9f\x98",
    "2-then-ascii": b"\xc3(",
    "3-then-ascii": b"\xe2\x28\xa1",
    "3-then-ascii-late": b"\xe2\x82\x28",
    "4-then-ascii": b"\xf0\x28\x8c\xbc",
    "4-then-ascii-late": b"\xf0\x9f\x98\x28",
    "2-one-too-many": b"\xc3\xbc\x80",
    "overlong-2-nul": b"\xc0\x80",
    "overlong-2-slash": b"\xc0\xaf",
    "overlong-2-last": b"\xc1\xbf",
    "overlong-3-nul": b"\xe0\x80\x80",
    "overlong-3-slash": b"\xe0\x80\xaf",
    "overlong-3-last": b"\xe0\x9f\xbf",
    "overlong-4-nul": b"\xf0\x80\x80\x80",
    "overlong-4-slash": b"\xf0\x80\x80\xaf",
    "overlong-4-last": b"\xf0\x8f\xbf\xbf",
    "surrogate-first": b"\xed\xa0\x80",
    "surrogate-last-high": b"\xed\xaf\xbf",
    "surrogate-first-low": b"\xed\xb0\x80",
    "surrogate-last": b"\xed\xbf\xbf",
    "surrogate-pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "f5": b"\xf5\x80\x80\x80",
    "f7": b"\xf7\xbf\xbf\xbf",
    "five-bytes": b"\xf8\x88\x80\x80\x80",
    "six-bytes": b"\xfc\x84\x80\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
    "utf-16-mark": b"\xff\xfea\x00",
    "latin-1": b"gr\xfc\xdfe",
    "good-then-bad": "Κόσμε".encode() + b"\xed\xa0\x80" + b"edited",
    "bad-between": b"a\x80b",
}

GOOD_SPLITS = [(name, cut) for name, whole in GOOD.items() for cut in range(len(whole.encode()) + 1)]
BAD_SPLITS = [(name, cut) for name, raw in BAD.items() for cut in range(len(raw) + 1)]


@pytest.mark.parametrize("whole", GOOD.values(), ids=GOOD)
def test_good_text_is_delivered(port: int, whole: str) -> None:
    answer = talk(port, [text(whole) + close()])

    assert answer.said == [("text", whole.encode()), ("close", 1000)]


@pytest.mark.parametrize("whole", GOOD.values(), ids=GOOD)
def test_good_text_is_delivered_byte_by_byte(port: int, whole: str) -> None:
    answer = talk(port, bytewise(text(whole) + close()))

    assert answer.said == [("text", whole.encode()), ("close", 1000)]


@pytest.mark.parametrize("whole", GOOD.values(), ids=GOOD)
def test_good_text_is_delivered_in_a_fragment_per_byte(port: int, whole: str) -> None:
    answer = talk(port, [fragments(*bytewise(whole.encode())) + close()])

    assert answer.said == [("text", whole.encode()), ("close", 1000)]


@pytest.mark.parametrize(("name", "cut"), GOOD_SPLITS)
def test_good_text_is_delivered_wherever_it_is_split(port: int, name: str, cut: int) -> None:
    raw = GOOD[name].encode()

    answer = talk(port, [fragments(raw[:cut], raw[cut:]) + close()])

    assert answer.said == [("text", raw), ("close", 1000)]


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_bad_text_is_refused(port: int, raw: bytes) -> None:
    answer = talk(port, [text(raw)])

    assert answer.said == [("close", 1007)]


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_bad_text_is_refused_byte_by_byte(port: int, raw: bytes) -> None:
    answer = talk(port, bytewise(text(raw)))

    assert answer.said == [("close", 1007)]


@pytest.mark.parametrize(("name", "cut"), BAD_SPLITS)
def test_bad_text_is_refused_wherever_it_is_split(port: int, name: str, cut: int) -> None:
    raw = BAD[name]

    answer = talk(port, [fragments(raw[:cut], raw[cut:])])

    assert answer.said == [("close", 1007)]


@pytest.mark.parametrize("name", ["umlaut", "euro", "face", "all-lengths"])
def test_character_around_a_ping_is_whole(port: int, name: str) -> None:
    raw = GOOD[name].encode()
    first, last = frame(TEXT, raw[:1], fin=False), frame(CONT, raw[1:])

    answer = talk(port, [first + ping("p") + last + close()])

    assert answer.said == [("pong", b"p"), ("text", raw), ("close", 1000)]


@pytest.mark.parametrize("name", ["cut-2", "lone-80", "overlong-2-nul", "surrogate-pair", "ff"])
def test_bad_text_around_a_ping_is_refused(port: int, name: str) -> None:
    raw = BAD[name]
    first, last = frame(TEXT, raw[:1], fin=False), frame(CONT, raw[1:])

    answer = talk(port, [first + ping("p") + last])

    assert answer.said == [("pong", b"p"), ("close", 1007)]


@pytest.mark.parametrize("cut", range(1, 4))
def test_character_cut_over_two_messages_is_refused(port: int, cut: int) -> None:
    raw = "😀".encode()

    answer = talk(port, [text(raw[:cut]) + text(raw[cut:])])

    assert answer.said == [("close", 1007)]


@pytest.mark.parametrize("name", ["umlaut", "euro", "face"])
def test_large_text_of_long_characters_is_delivered(port: int, name: str) -> None:
    raw = GOOD[name].encode() * 30_000

    answer = talk(port, [fragments(raw[:65_537], raw[65_537:]) + close()])

    assert answer.said == [("text", raw), ("close", 1000)]


def test_large_text_with_its_last_byte_missing_is_refused(port: int) -> None:
    raw = ("€" * 30_000).encode()

    answer = talk(port, [text(raw[:-1])])

    assert answer.said == [("close", 1007)]
