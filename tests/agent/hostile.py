"""Messages for the protocol's tests: random good ones of every type, and what a hostile agent makes of them."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import random
import types
import typing
from collections.abc import Callable, Mapping

from agent.protocol import Message, encode

TEXTS = ("", "web", "build/api", "line ✓\n", "😀\u2028", "run-1/b-1/1", "x" * 300, "\ufffd", "\x1b[31m", "null", "*")
WRONG_VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1.5, "", "1", [], [1], {}, {"a": 1}, [[]], [{}], [None]),
    *("\x00", "a\x00b", "\ud800", "\udfff", "a\udc00\ud800b", {"\ud800": 1.0}, {"\x00": "x"}, {"\ud800": None}),
    *(2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, -(10**300), 10**400),
)
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" + "0" * 400,
    "9" * 5000,
    "-0",
    "1e2",
    "1.0",
    "01",
    "0x1",
)
PIECES = (
    r"\u0000",
    r"\ud800",
    r"\udc00",
    r"\ud83d",
    r"\x00",
    "\\",
    r"\u12",
    "\x00",
    "\x01",
    "\n",
    '"',
    "\ud800",
    "\ufeff",
)
BYTES = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82", b"\x00")
DEPTHS = (3, 900, 1100, 60_000)
M = typing.TypeVar("M")


def a_message(kind: type[M], rng: random.Random, **given: object) -> M:
    """A well-formed message (or part of one) of this type; `given` fields are as given."""
    hints = _hints_of(kind)
    return kind(**{name: given[name] if name in given else _value(hint, rng) for name, hint in hints.items()})


_HINTS: dict[object, dict[str, object]] = {}


def _hints_of(kind: type) -> dict[str, object]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _value(hint: object, rng: random.Random) -> object:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if rng.random() < 0.5 else _value(inner[0], rng)
    if origin is tuple:
        return tuple(_value(inner[0], rng) for _ in range(rng.randrange(3)))
    if origin is dict:
        return {rng.choice(TEXTS): _value(inner[1], rng) for _ in range(rng.randrange(3))}
    assert isinstance(hint, type)
    if dataclasses.is_dataclass(hint):
        return a_message(hint, rng)
    if issubclass(hint, enum.Enum):
        return rng.choice(list(hint))
    plain: Mapping[type, Callable[[], object]] = {
        bool: lambda: rng.random() < 0.5,
        str: lambda: rng.choice(TEXTS),
        int: lambda: rng.choice((0, 1, rng.randrange(2**40), -rng.randrange(2**40))),
        float: lambda: rng.choice((0.0, 30.0, rng.random(), 1e300)),
    }
    return plain[hint]()


def spoil(message: Message, rng: random.Random) -> bytes:
    """A frame that began as this message. A few are still good ones."""
    how = rng.choice((_spoil_values, _spoil_values, _spoil_text, _spoil_text, _spoil_bytes))
    return how(encode(message), rng)


def _spoil_values(text: str, rng: random.Random) -> bytes:
    """Still JSON, mostly: other values and types, fields that are missing, unknown, or there twice."""
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 3))):
        _spoil_object(_some_object(tree, rng), rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _some_object(tree: dict[str, object], rng: random.Random) -> dict[str, object]:
    """The message itself or one of the objects inside it."""
    found = [tree]
    for value in tree.values():
        found += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]
    return rng.choice(found)


def _spoil_object(fields: dict[str, object], rng: random.Random) -> None:
    name = rng.choice([*fields, "surplus", "\ud800", "\x00", "__class__", "seq" * 50])
    change = rng.choice(("replace", "replace", "replace", "drop", "wrap", "nest"))
    if change == "drop":
        fields.pop(name, None)
    elif change == "wrap":
        fields[name] = [fields.get(name)]
    elif change == "nest":
        fields[name] = {name: fields.get(name)}
    else:
        fields[name] = copy.deepcopy(rng.choice(WRONG_VALUES))


def _spoil_text(text: str, rng: random.Random) -> bytes:
    """Often no JSON any more."""
    at = rng.randrange(len(text))
    other = rng.randrange(len(text))
    deep = rng.choice(DEPTHS)
    number = rng.choice(NUMBERS)
    spoilt = rng.choice(
        (
            lambda: text[:at],
            lambda: text[:at] + text[at + 1 :],
            lambda: text[:at] + rng.choice(PIECES) + text[at:],
            lambda: text[:at] + text[other:],
            lambda: text + rng.choice((text, "x", ",", "\x00", "[]")),
            lambda: _one_field_twice(text, rng),
            lambda: _some_number_as(text, number),
            lambda: text.replace("[]", "[" * deep + "]" * deep, 1).replace("{}", '{"a":' * deep + "1" + "}" * deep, 1),
            lambda: rng.choice(("[", "{", '{"type":')) * deep,
            lambda: f"[{text}]",
            lambda: rng.choice(("", "null", "1", '"type"', "[]", "{}", number, '{"type":[]}', '{"type":"\\ud800"}')),
        )
    )()
    return spoilt.encode("utf-8", "surrogatepass")


def _one_field_twice(text: str, rng: random.Random) -> str:
    fields: dict[str, object] = json.loads(text)
    name = rng.choice(list(fields))
    again = json.dumps({name: fields[name]})[1:-1]
    return "{" + rng.choice((again, again.replace('"', '"\\u0073' if name == "seq" else '"', 1))) + "," + text[1:]


def _some_number_as(text: str, number: str) -> str:
    for field in ('"seq":', '"disk_free_bytes":', '"exit_code":', '"heartbeat_s":', '"timeout_s":', '"version":'):
        head, found, rest = text.partition(field)
        if found:
            return head + found + number + rest.lstrip("0123456789.-eE+nul")
    return text.replace("{}", f'{{"build":{number}}}', 1)


def _spoil_bytes(text: str, rng: random.Random) -> bytes:
    """No UTF-8 any more, mostly."""
    raw = text.encode()
    at = rng.randrange(len(raw))
    return rng.choice(
        (
            raw[:at] + rng.choice(BYTES) + raw[at:],
            raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :],
            raw[:at] + rng.randbytes(8),
            rng.randbytes(rng.randrange(40)),
            text.encode("utf-16"),
        )
    )
