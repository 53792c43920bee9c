"""Fields on their way out: which of them a version knows, and that the other end will read them. Pure.

The way in is agent/strict.py.
"""

from __future__ import annotations

import dataclasses
import json
import typing

from agent.strict import ProtocolError, is_sayable

T = typing.TypeVar("T")
_ADDED_IN = "added_in"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # json.dumps makes one a call.


def added_in(version: int, default: T) -> T:
    """A field that came with this version. Whoever speaks an older one must be able to do without it."""
    made: T = dataclasses.field(default=default, metadata={_ADDED_IN: version})
    return made


def plain_fields(message: object, version: int) -> dict[str, object]:
    """A message's (or a part's) fields as JSON takes them, without those that came after `version`."""
    return {name: _plain(getattr(message, name), version) for name, since in _sent(type(message)) if since <= version}


def _plain(value: object, version: int) -> object:
    if isinstance(value, tuple):
        return [_plain(part, version) for part in value]
    return plain_fields(value, version) if dataclasses.is_dataclass(value) else value


_SENT: dict[type, tuple[tuple[str, int], ...]] = {}


def _sent(cls: type) -> tuple[tuple[str, int], ...]:
    """The fields' names, each with the version it came with."""
    if cls not in _SENT:
        _SENT[cls] = tuple((f.name, f.metadata.get(_ADDED_IN, 1)) for f in dataclasses.fields(cls))
    return _SENT[cls]


def text_of(fields: dict[str, object], name: str) -> str:
    """The JSON text of what `object_of` reads back; `name` is the message's in errors.

    Raises:
        ProtocolError: `bad_value` for a float that JSON has no word for, and for a text with NUL or a lone surrogate.
    """
    try:
        text = _ENCODER.encode({"type": name, **fields})
    except ValueError as error:
        raise ProtocolError("bad_value", f"{name} holds a number that is not finite") from error
    if "\\u0000" in text or not text.isascii():
        _refuse_unsayable(fields, name)
    return text


def _refuse_unsayable(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _refuse_unsayable(key, where)
            _refuse_unsayable(part, f"{where}.{key[:40]!a}".replace("'", ""))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            _refuse_unsayable(part, f"{where}[{at}]")
    elif isinstance(value, str) and not is_sayable(value):
        raise ProtocolError("bad_value", f"{where} holds a lone surrogate or NUL")
