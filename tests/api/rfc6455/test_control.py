"""Pings and pongs. Source: RFC 6455 sections 5.5, 5.5.2 and 5.5.3."""

from __future__ import annotations

import pytest

from tests.api.rfc6455.peer import CLOSE, NAMES, PING, PONG, bytewise, close, frame, head, ping, talk, text

PAYLOADS = {
    "empty": b"",
    "one": b"a",
    "nul": b"\x00",
    "no-utf8": b"\xff\xfe\xc0\x80",
    "every-byte": bytes(range(100)),
    "high-bytes": bytes(range(140, 256)),
    "looks-like-a-frame": close(),
    "124": b"x" * 124,
    "125": b"x" * 125,
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_ping_is_answered_with_its_payload(port: int, payload: bytes) -> None:
    answer = talk(port, [ping(payload) + close()])

    assert answer.said == [("pong", payload), ("close", 1000)]


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_ping_is_answered_byte_by_byte(port: int, payload: bytes) -> None:
    answer = talk(port, bytewise(ping(payload) + close()))

    assert answer.said == [("pong", payload), ("close", 1000)]


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_pong_nobody_asked_for_is_not_answered(port: int, payload: bytes) -> None:
    answer = talk(port, [frame(PONG, payload) + close()])

    assert answer.said == [("close", 1000)]


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_every_ping_is_answered_in_order(port: int, count: int) -> None:
    answer = talk(port, [b"".join(ping(f"{n}") for n in range(count)), close()])

    assert answer.said == [*(("pong", b"%d" % n) for n in range(count)), ("close", 1000)]


@pytest.mark.parametrize("size", [126, 127, 128, 255, 1000, 65_535, 65_536, 262_144])
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=NAMES.get)
def test_control_frame_that_is_too_long_is_refused(port: int, opcode: int, size: int) -> None:
    answer = talk(port, [frame(opcode, b"\x03\xe8" + b"x" * (size - 2))])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=NAMES.get)
def test_control_frame_over_the_limit_is_refused_by_its_head(port: int, opcode: int) -> None:
    answer = talk(port, [head(opcode, 262_145)])

    assert answer.said == [("close", 1009)]


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=NAMES.get)
@pytest.mark.parametrize("size", [0, 2, 125])
def test_control_frame_in_fragments_is_refused(port: int, opcode: int, size: int) -> None:
    answer = talk(port, [frame(opcode, (b"\x03\xe8" + b"x" * 123)[:size], fin=False)])

    assert answer.said == [("close", 1002)]


@pytest.mark.parametrize(
    ("frames", "kinds"),
    [(ping("p") + text("t"), ["pong", "text", "close"]), (text("t") + ping("p"), ["text", "pong", "close"])],
    ids=["ping-first", "text-first"],
)
def test_ping_and_text_are_answered_in_their_order(port: int, frames: bytes, kinds: list[str]) -> None:
    answer = talk(port, [frames + close()])

    assert [kind for kind, _ in answer.said] == kinds
