"""The one definition of the wire: what is refused, by which name, and how two versions meet."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent import protocol
from agent.fields import added_in, plain_fields
from agent.protocol import (
    MAX_FRAME_BYTES,
    Ack,
    AgentState,
    Deploy,
    Failure,
    Heartbeat,
    Log,
    Outcome,
    ProtocolError,
    Refused,
    Result,
    Service,
    ToCore,
    decode_to_agent,
    decode_to_core,
    encode,
    negotiate,
)


def refusal(text: str) -> tuple[str, str]:
    """The code and the text behind it."""
    with pytest.raises(ProtocolError) as caught:
        decode_to_core(text)
    return caught.value.code, str(caught.value).removeprefix(f"{caught.value.code}: ")


def test_a_message_is_one_object_with_its_name_as_type() -> None:
    assert encode(Ack(7)) == '{"type":"ACK","seq":7}'
    assert decode_to_agent('{"type":"ACK","seq":7}') == Ack(7)


def test_fields_with_a_default_may_be_missing() -> None:
    message = decode_to_core('{"type":"RESULT","seq":1,"command_id":"c","outcome":"failed"}')

    assert message == Result(1, "c", Outcome.FAILED)


def test_a_message_for_the_other_side_is_unknown() -> None:
    assert refusal('{"type":"ACK","seq":7}') == (
        "unknown_type",
        "'ACK' is not a message to the core (HELLO, HEARTBEAT, LOG, STATUS, RESULT)",
    )


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ('"seq":1,"stream":"s","data":"d"', "missing_field", "LOG lacks 'command_id'"),
        ('"seq":1,"command_id":"c","stream":"s","data":"d","at":1', "unknown_field", "LOG has no field 'at'"),
        ('"seq":"1","command_id":"c","stream":"s","data":"d"', "bad_value", "LOG.seq must be int, got str"),
        ('"seq":true,"command_id":"c","stream":"s","data":"d"', "bad_value", "LOG.seq must be int, got bool"),
        ('"seq":1,"command_id":null,"stream":"s","data":"d"', "bad_value", "LOG.command_id must be str, got NoneType"),
        (
            '"seq":1,"command_id":"c","stream":"s","data":"\\u0000"',
            "bad_value",
            "LOG.data holds a lone surrogate or NUL",
        ),
        (
            '"seq":1,"command_id":"c","stream":"s","data":"\\ud800"',
            "bad_value",
            "LOG.data holds a lone surrogate or NUL",
        ),
        (
            '"seq":9223372036854775808,"command_id":"c","stream":"s","data":"d"',
            "bad_value",
            "LOG.seq needs over 64 bits",
        ),
        ('"seq":1,"seq":1,"command_id":"c","stream":"s","data":"d"', "bad_json", "a key stands twice in one object"),
        (
            '"seq":1,"s\\u0065q":1,"command_id":"c","stream":"s","data":"d"',
            "bad_json",
            "a key stands twice in one object",
        ),
        ('"seq":NaN,"command_id":"c","stream":"s","data":"d"', "bad_json", "NaN is not a number of JSON"),
    ],
    ids=[
        *("missing", "unknown", "text for number", "bool for number", "null", "NUL", "surrogate", "huge", "twice"),
        *("twice-escaped", "NaN"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: str, code: str, text: str) -> None:
    assert refusal(f'{{"type":"LOG",{fields}}}') == (code, text)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_beyond_every_float_is_refused(number: str) -> None:
    fields = f'"seq":1,"command_id":"c","outcome":"failed","phases":{{"build":{number}}}'

    assert refusal(f'{{"type":"RESULT",{fields}}}') == ("bad_value", "RESULT.phases.build is larger than any float")


@pytest.mark.parametrize("key", ["\\ud800", "\\u0000"])
def test_a_key_that_no_text_column_takes_is_refused(key: str) -> None:
    fields = f'"seq":1,"command_id":"c","outcome":"failed","phases":{{"{key}":1}}'

    assert refusal(f'{{"type":"RESULT",{fields}}}') == ("bad_value", "RESULT.phases holds a lone surrogate or NUL")


def test_an_error_about_a_hostile_key_is_plain_text() -> None:
    fields = '"seq":1,"command_id":"c","outcome":"failed","phases":{"\\n\\u2028\\u001b[31m":"x"}'

    _, text = refusal(f'{{"type":"RESULT",{fields}}}')

    assert text == "RESULT.phases.\\n\\u2028\\x1b[31m must be float, got str"


def test_a_float_that_json_has_no_word_for_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match=r"bad_value: RESULT holds a number that is not finite"):
        encode(Result(1, "c", Outcome.FAILED, phases={"build": float("nan")}))


def test_a_frame_of_the_greatest_size_is_sent_and_a_greater_one_is_not() -> None:
    around = len(encode(Log(1, "c", "s", "")))
    largest = encode(Log(1, "c", "s", "ä" * ((MAX_FRAME_BYTES - around) // 2)))

    assert len(largest.encode()) in (MAX_FRAME_BYTES - 1, MAX_FRAME_BYTES)
    with pytest.raises(ProtocolError, match="frame_too_large: LOG has more than 262144 bytes"):
        encode(Log(1, "c", "s", "ä" * ((MAX_FRAME_BYTES - around) // 2 + 1)))


@pytest.mark.parametrize(
    ("theirs", "ours", "spoken"),
    [(4, 4, 4), (3, 4, 3), (5, 4, 4), (1, 1, 1), (2, 1, 1)],
    ids=["same", "theirs is older", "theirs is newer", "first", "first and second"],
)
def test_two_versions_side_by_side_speak_the_older_one(theirs: int, ours: int, spoken: int) -> None:
    assert negotiate(theirs, ours) == spoken


@pytest.mark.parametrize(("theirs", "ours"), [(2, 4), (6, 4), (0, 1), (-1, 1), (2**62, 4), (0, 0)])
def test_versions_further_apart_have_nothing_in_common(theirs: int, ours: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        negotiate(theirs, ours)

    assert caught.value.code == "unsupported_version"


def test_versions_without_a_common_one_are_both_named() -> None:
    with pytest.raises(ProtocolError, match="version 6 of the agent protocol is spoken here next to 5, not 3"):
        negotiate(3, 6)


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    color: str = added_in(3, "red")


@dataclass(frozen=True, slots=True)
class Whole:
    """Stands for a message of version 3."""

    seq: int
    parts: tuple[Part, ...] = ()
    best: Part | None = None
    weight: int = added_in(2, 5)


def test_a_field_is_left_out_for_a_version_that_does_not_know_it() -> None:
    whole = Whole(1, (Part("a"),), Part("b", "blue"), weight=7)

    assert plain_fields(whole, 1) == {"seq": 1, "parts": [{"name": "a"}], "best": {"name": "b"}}
    assert plain_fields(whole, 2) == {"seq": 1, "parts": [{"name": "a"}], "best": {"name": "b"}, "weight": 7}
    assert plain_fields(whole, 3) == {
        "seq": 1, "parts": [{"name": "a", "color": "red"}], "best": {"name": "b", "color": "blue"}, "weight": 7,
    }  # fmt: skip


def test_a_message_is_not_sent_to_a_version_that_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocol.ADDED_MESSAGES, Heartbeat, 2)

    with pytest.raises(
        ProtocolError, match="unsupported_version: HEARTBEAT came with version 2, the other end speaks 1"
    ):
        encode(Heartbeat(protocol.AgentState.IDLE), version=1)


def test_nested_values_keep_their_order_and_their_empty_fields() -> None:
    heartbeat = Heartbeat(protocol.AgentState.HEALTHY, (Service("web", "running"),), 1, 2)

    assert encode(heartbeat) == (
        '{"type":"HEARTBEAT","state":"healthy","services":[{"name":"web","status":"running","health":"",'
        '"exit_code":null}],"disk_free_bytes":1,"memory_free_bytes":2}'
    )


def test_secrets_do_not_stand_in_what_is_printed() -> None:
    deploy = Deploy(
        "c", "r", "s", "p", (), (), (), 1.0,
        secrets=(protocol.SecretValue("KEY", "hush-hush"),), repo_token="hush-repo", registry_token="hush-registry",
    )  # fmt: skip
    hello = protocol.Hello("vm-1", "key", "hush-signature", "boot-1", "hush-session", "hush-next", "hush-token")

    assert "hush" not in f"{deploy!r} {hello!r} {protocol.Mask(('hush-mask',))!r}"


def test_a_refusal_of_a_later_version_is_understood() -> None:
    assert decode_to_agent('{"type":"REFUSED","code":"x","message":"y"}') == Refused("x", "y")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Log(1, "c", "s", "a\x00b"), "LOG.data holds a lone surrogate or NUL"),
        (Log(1, "c", "s", "é\ud800"), "LOG.data holds a lone surrogate or NUL"),
        (Result(1, "c", Outcome.FAILED, phases={"é\udfff": 1.0}), "RESULT.phases holds a lone surrogate or NUL"),
        (
            Heartbeat(AgentState.IDLE, (Service("w\x00", "up"),)),
            "HEARTBEAT.services[0].name holds a lone surrogate or NUL",
        ),
        (
            Result(1, "c", Outcome.FAILED, failure=Failure("up", "m", tail=("ok", "\udc80"))),
            "RESULT.failure.tail[1] holds a lone surrogate or NUL",
        ),
    ],
)  # fmt: skip
def test_what_the_other_end_would_refuse_is_not_sent(message: ToCore, text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode(message)

    assert (caught.value.code, str(caught.value)) == ("bad_value", f"bad_value: {text}")


def test_text_that_only_looks_like_nul_on_the_wire_is_sent() -> None:
    message = Log(1, "c", "s", "\\u0000 é 漢")

    assert decode_to_core(encode(message)) == message
