"""Strict decoding: JSON text to the dataclasses of agent/protocol.py, or an error that names what is wrong. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable

_INT_LIMIT = 2**63  # Postgres' bigint; whoever reads such a number later may have no larger ones.

T = typing.TypeVar("T")


class ProtocolError(ValueError):
    """What is no message of this protocol. `code` is stable, the text names the field and the value's type.

    Codes: bad_json, unknown_type, unknown_field, missing_field, bad_value, frame_too_large, unsupported_version.
    The text is printable whatever the frame held: it travels back in a Refused and stands in logs.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def object_of(text: str) -> tuple[dict[str, object], str]:
    """A frame's fields and the name under "type". Raises ProtocolError."""
    try:
        loaded = _DECODER.decode(text)
    except ProtocolError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_json", f"the frame is not JSON ({error})") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("type"), str):
        raise ProtocolError("bad_json", 'the frame is not an object with a "type"')
    name = loaded.pop("type")
    assert isinstance(name, str)
    return loaded, name


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("bad_json", "a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> object:
    raise ProtocolError("bad_json", f"{name} is not a number of JSON")


# Made once: json.loads makes one with every call, which costs as much as reading a heartbeat.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def build(cls: type[T], fields: dict[str, object], where: str) -> T:
    """The dataclass with these fields, each of exactly its type. `where` names it in errors. Raises ProtocolError."""
    try:
        return typing.cast("T", _of_dataclass(cls)(fields))  # cast: a reader of a dataclass gives nothing else.
    except _Wrong as error:
        raise ProtocolError(error.code, f"{where}{error.path} {error.text}") from None


class _Wrong(Exception):
    """A value that is not as it must be. `path` grows on the way out, so that nobody pays for it while all is well."""

    def __init__(self, text: str, code: str = "bad_value") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.path = ""


Reader = Callable[[object], object]
"""Takes a value of JSON and gives it as its hint says, or raises _Wrong. A bool is no int; an int is a float."""


_READERS: dict[type, Reader] = {}


def _of_dataclass(cls: type) -> Reader:
    if cls not in _READERS:
        _READERS[cls] = _dataclass_reader(cls)
    return _READERS[cls]


def _dataclass_reader(cls: type) -> Reader:
    hints = typing.get_type_hints(cls)
    readers = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(cls)}
    required = {f.name for f in dataclasses.fields(cls) if _is_required(f)}

    def read(value: object) -> object:
        if not isinstance(value, dict):
            raise _not("an object", value)
        for name in value:
            if name not in readers:
                raise _Wrong(f"has no field {name[:40]!r}", code="unknown_field")
        if not required <= value.keys():
            missing = next(name for name in readers if name in required and name not in value)
            raise _Wrong(f"lacks {missing!r}", code="missing_field")
        found = {}
        for name, part in value.items():
            try:
                found[name] = readers[name](part)
            except _Wrong as error:
                error.path = f".{name}{error.path}"
                raise
        return cls(**found)

    return read


def _is_required(f: dataclasses.Field[object]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _reader(hint: object) -> Reader:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _of_optional(_reader(inner))
    if origin is tuple:
        return _of_tuple(_reader(arguments[0]))
    if origin is dict:
        return _of_dict(_reader(arguments[1]))
    if isinstance(hint, type):
        return _of_type(hint)
    raise AssertionError(f"no rule for {hint!r}")


def _of_type(hint: type) -> Reader:
    if dataclasses.is_dataclass(hint):
        return _of_dataclass(hint)
    if issubclass(hint, enum.Enum):
        return _of_enum(hint)
    return {str: _text, int: _integer, float: _number, bool: _boolean}[hint]


def _of_optional(inner: Reader) -> Reader:
    return lambda value: None if value is None else inner(value)


def _of_tuple(inner: Reader) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, list):
            raise _not("a list", value)
        found: list[object] = []
        try:
            for part in value:
                found.append(inner(part))  # No comprehension: its length says which one was wrong.
        except _Wrong as error:
            error.path = f"[{len(found)}]{error.path}"
            raise
        return tuple(found)

    return read


def _of_dict(inner: Reader) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, dict):
            raise _not("an object", value)
        for key in value:
            _text(key)
        found = {}
        for key, part in value.items():
            try:
                found[key] = inner(part)
            except _Wrong as error:
                error.path = f".{repr(key[:40])[1:-1]}{error.path}"
                raise
        return found

    return read


def _of_enum(hint: type[enum.Enum]) -> Reader:
    members = {member.value: member for member in hint}

    def read(value: object) -> object:
        if not isinstance(value, str) or value not in members:
            raise _not("one of " + ", ".join(map(str, members)), value)
        return members[value]

    return read


def is_sayable(text: str) -> bool:
    """Whether Postgres and UTF-8 both can hold it: no NUL, no lone surrogate."""
    return "\x00" not in text and (text.isascii() or _is_utf8(text))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _not("str", value)
    if not is_sayable(value):
        raise _Wrong("holds a lone surrogate or NUL")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(value: object) -> int:
    if type(value) is not int:
        raise _not("int", value)
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise _Wrong("needs over 64 bits")
    return value


def _number(value: object) -> float:
    if type(value) not in (float, int):
        raise _not("float", value)
    try:
        number = float(typing.cast("float", value))  # cast: one of the two types above.
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):  # The JSON text 1e999 is infinity to Python, and no JSON any more when it is sent on.
        raise _Wrong("is larger than any float")
    return number


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _not("bool", value)
    return value


def _not(wanted: str, value: object) -> _Wrong:
    return _Wrong(f"must be {wanted}, got {type(value).__name__}")
