"""docs/agent-protocol.md says what the code does: its examples run, and its tables are complete."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import protocol, session
from agent.protocol import TO_AGENT, TO_CORE, Message, ProtocolError, decode_to_agent, decode_to_core, encode, negotiate
from api.gateway import session as gateway_session

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "agent-protocol.md").read_text()
EXAMPLES: list[str] = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
MESSAGES: dict[str, type[Message]] = {**TO_CORE, **TO_AGENT}
PARTS = (protocol.Service, protocol.Failure, protocol.SecretValue, protocol.Image, protocol.Exposed)
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def type_of(example: str) -> str:
    return str(json.loads(example)["type"])


def decoded(example: str) -> Message:
    return decode_to_core(example) if type_of(example) in TO_CORE else decode_to_agent(example)


def section(heading: str) -> str:
    """What stands under this heading, up to the next one of the same rank or higher."""
    rank = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(rank)}}} |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/agent-protocol.md has no {heading!r}"
    return found.group(1)


def cells(heading: str) -> list[list[str]]:
    """The rows of the tables under this heading, without their heads."""
    rows = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("|")]
    plain = [[cell.strip().strip("`") for cell in row] for row in rows]
    heads = {at - 1 for at, row in enumerate(plain) if set(row[0]) == {"-"}}
    return [row for at, row in enumerate(plain) if at not in heads and set(row[0]) != {"-"}]


@pytest.mark.parametrize("example", EXAMPLES, ids=type_of)
def test_an_example_is_the_same_after_decoding_and_encoding(example: str) -> None:
    assert json.loads(encode(decoded(example))) == json.loads(example)


def test_the_examples_signature_is_right_for_the_nonce_beside_it() -> None:
    (example,) = [decoded(example) for example in EXAMPLES if type_of(example) == "HELLO"]
    (nonce,) = re.findall(r"right for the nonce `(\w+)`", TEXT)
    assert isinstance(example, protocol.Hello)

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(example.public_key))
    key.verify(bytes.fromhex(example.signature), protocol.signed_bytes(example, nonce))


def test_the_signed_lines_are_those_of_the_code() -> None:
    hello = protocol.Hello("<agent_id>", "<public_key>", "", "<boot_id>", "<session>", "<next_session>")

    (said,) = re.findall(r"```text\n(stagely agent hello.*?)\n```", TEXT, re.DOTALL)

    assert protocol.signed_bytes(hello, "<nonce>").decode() == said


def test_every_message_has_exactly_one_example() -> None:
    assert [type_of(example) for example in EXAMPLES] == list(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_of_a_message_stands_in_its_table(name: str) -> None:
    assert ROW.findall(section(f"#### {name}")) == [field.name for field in dataclasses.fields(MESSAGES[name])]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_of_a_part_stands_in_its_table(part: type) -> None:
    assert ROW.findall(section(f"#### {part.__name__}")) == [field.name for field in dataclasses.fields(part)]


@pytest.mark.parametrize("heading", [f"#### {name}" for name in MESSAGES] + [f"#### {part.__name__}" for part in PARTS])
def test_a_default_stands_where_there_is_one(heading: str) -> None:
    kind = {**MESSAGES, **{part.__name__: part for part in PARTS}}[heading.removeprefix("#### ")]
    said = {row[0] for row in cells(heading) if "default" in row[1]}

    assert said == {field.name for field in dataclasses.fields(kind) if not _is_required(field)}


def _is_required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@pytest.mark.parametrize("row", cells("## Limits"), ids=lambda row: row[2])
def test_a_limit_is_that_of_the_code(row: list[str]) -> None:
    _, value, place = row
    module, _, name = place.rpartition(".")

    assert getattr(importlib.import_module(module), name) == float(value)


def test_every_state_stands_in_its_diagram() -> None:
    agents = set(re.findall(r"--> (\w+)", section("## The agent's session")))
    gateways = set(re.findall(r"--> (\w+)", section("## The gateway's session")))

    assert agents == {phase.value for phase in session.Phase}
    assert gateways == {phase.name for phase in gateway_session.Phase}


def test_every_value_of_a_closed_set_is_named() -> None:
    states = {f"`{state}`" for state in protocol.AgentState}
    outcomes = {f"`{outcome}`" for outcome in protocol.Outcome}

    assert states - set(re.findall(r"`\w+`", section("#### HEARTBEAT"))) == set()
    assert outcomes - set(re.findall(r"`\w+`", section("#### RESULT"))) == set()


def test_every_code_of_a_bad_frame_is_named() -> None:
    source = "".join((ROOT / "agent" / name).read_text() for name in ("protocol.py", "strict.py"))
    table = [row[0] for row in cells("## Errors") if len(row) == 2]

    assert sorted(table) == sorted(set(re.findall(r'(?:ProtocolError\(\s*|code=|code: str = )"(\w+)"', source)))


def test_every_code_of_the_gateway_is_named() -> None:
    gateway = "".join(path.read_text() for path in (ROOT / "api" / "gateway").glob("*.py"))
    tokens = (ROOT / "stagely" / "tokens.py").read_text()
    said = set(re.findall(r'\.refuse\(\s*"(\w+)"|ProtocolError\(\s*"(\w+)"|return "(\w+)", f?"', gateway))
    said |= {(code, "", "") for code in re.findall(r'TokenRefused\(\s*"(\w+)"', tokens)}
    known = {row[0] for row in cells("## Errors")}

    assert {code for codes in said for code in codes if code} - known == set()
    assert len(said) >= 10


@pytest.mark.parametrize("row", cells("## Versions"), ids=lambda row: f"agent {row[0]}")
def test_the_table_of_versions_is_what_is_negotiated(row: list[str]) -> None:
    agent, *spoken = row

    assert [met(int(agent), gateway) for gateway in range(1, 5)] == spoken


def met(agent: int, gateway: int) -> str:
    try:
        return str(negotiate(agent, gateway))
    except ProtocolError:
        return "refused"


def test_the_version_of_the_text_is_that_of_the_code() -> None:
    assert re.findall(r"^Version (\d+)\.$", TEXT, re.MULTILINE) == [str(protocol.VERSION)]
