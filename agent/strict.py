"""Strict decoding: JSON text to the dataclasses of agent/protocol.py, or an error that names what is wrong. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing

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
        loaded = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
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


def build(cls: type[T], fields: dict[str, object], where: str) -> T:
    """The dataclass with these fields, each of exactly its type. `where` names it in errors. Raises ProtocolError."""
    hints = _hints(cls)
    for name in fields:
        if name not in hints:
            raise ProtocolError("unknown_field", f"{where} has no field {name[:40]!r}")
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]  # every class given here is a dataclass
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in fields:
            raise ProtocolError("missing_field", f"{where} lacks {f.name!r}")
    return cls(**{name: _checked(hints[name], value, f"{where}.{name}") for name, value in fields.items()})


_HINTS: dict[type, dict[str, object]] = {}


def _hints(cls: type) -> dict[str, object]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _checked(hint: object, value: object, where: str) -> object:
    """`value` as the type that `hint` names, or ProtocolError. A bool is no int; an int is a float."""
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _checked_optional(hint, value, where)
    if origin is tuple:
        return _checked_tuple(hint, value, where)
    if origin is dict:
        return _checked_dict(hint, value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(value, where)
    if isinstance(hint, type):
        return _checked_plain(hint, value, where)
    raise AssertionError(f"no rule for {hint!r}")


def _as_float(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):  # The JSON text 1e999 is infinity to Python, and no JSON any more when it is sent on.
        raise ProtocolError("bad_value", f"{where} is larger than any float")
    return number


def _checked_optional(hint: object, value: object, where: str) -> object:
    if value is None:
        return None
    (inner,) = (a for a in typing.get_args(hint) if a is not type(None))
    return _checked(inner, value, where)


def _checked_tuple(hint: object, value: object, where: str) -> object:
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    inner = typing.get_args(hint)[0]
    return tuple(_checked(inner, part, f"{where}[{i}]") for i, part in enumerate(value))


def _checked_dict(hint: object, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    inner = typing.get_args(hint)[1]
    for key in value:
        _check_text(key, where)
    return {key: _checked(inner, part, f"{where}.{repr(key[:40])[1:-1]}") for key, part in value.items()}


def _checked_plain(hint: type, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return build(hint, value, where)
    if issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            raise _wrong(where, "one of " + ", ".join(str(m.value) for m in hint), value) from None
    if type(value) is not hint:
        raise _wrong(where, hint.__name__, value)
    if isinstance(value, str):
        _check_text(value, where)
    if isinstance(value, int) and not -_INT_LIMIT <= value < _INT_LIMIT:
        raise ProtocolError("bad_value", f"{where} needs over 64 bits")
    return value


def _check_text(text: str, where: str) -> None:
    """Raises ProtocolError for what Postgres, UTF-8 or both cannot hold."""
    is_utf8 = True
    try:
        text.encode()
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8 or "\x00" in text:
        raise ProtocolError("bad_value", f"{where} holds a lone surrogate or NUL")


def _wrong(where: str, wanted: str, value: object) -> ProtocolError:
    return ProtocolError("bad_value", f"{where} must be {wanted}, got {type(value).__name__}")
