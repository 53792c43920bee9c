"""YAML with places: values as plain Python, and the line each one stands on, for errors that people can act on.

Scalars are read as Docker Compose (Go's yaml.v3) reads them, not as YAML 1.1: `yes`, `12:30`, `22:22` and `=` are text.
A file is read event by event, each value once, with bounds on depth and on what its aliases stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from stagely.errors import SpecInvalid

try:
    from yaml import CBaseLoader as _Parser  # libyaml: ten times as fast, and takes the tabs that Compose takes.
except ImportError:
    from yaml import BaseLoader as _Parser  # type: ignore[assignment]  # The same interface in Python.

Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None
Path = tuple[str | int, ...]

MAX_DEPTH = 100
MAX_VALUES = 300_000  # With each alias counted as all that it stands for.
_NOTED_DEPTH = 12  # Deeper than any key we read.
_MERGE = "<<"
_WORDS: dict[str, Value] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_INT = re.compile(r"[-+]?(?:0b[01]{1,60}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}|[0-9][0-9_]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """`value` is the whole file, `file` its path in the repository, `lines` maps ("preview", "ttl") to its line.

    `tags` maps the path of a value to its own tag, such as Compose's `!reset` and `!override`.
    """

    file: str
    value: Value
    lines: dict[Path, int]
    tags: dict[Path, str] = field(default_factory=dict)

    def error(self, path: Path, text: str) -> SpecInvalid:
        """An error at `path`: `stagely.yaml:7: preview/ttl: TEXT`."""
        line = next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), 1)
        place = "/".join(str(part) for part in path)
        return SpecInvalid(f"{self.file}:{line}: {place + ': ' if place else ''}{text}")


def parse(text: str, file: str, *, plain: bool) -> Document:
    """The document in `text`. `plain` refuses anchors, aliases and tags.

    Raises SpecInvalid for what is no YAML, has duplicate keys, keys that are no strings, or more than one document
    with content, and for what nests too deep or becomes too much.
    """
    try:
        return _Reader(text.removeprefix("\ufeff"), file, plain).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecInvalid(
            f"{file}: is not YAML that we can read ({error}). Check it with `docker compose config`."
        ) from error


@dataclass(frozen=True, slots=True)
class _Anchored:
    """What an alias stands for, and how many values that is."""

    value: Value
    size: int


class _Reader:
    """One pass over the events of one file."""

    def __init__(self, text: str, file: str, plain: bool) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Parser)
        self._file = file
        self._plain = plain
        self._anchors: dict[str, _Anchored] = {}
        self._lines: dict[Path, int] = {}
        self._tags: dict[Path, str] = {}
        self._count = 0

    def document(self) -> Document:
        found = [value for value in self._documents() if value is not None]
        return Document(self._file, found[0] if found else None, self._lines, self._tags)

    def _documents(self) -> Iterator[Value]:
        """Each document of the file; one with content after another with content is refused."""
        has_content = False
        for event in self._events:
            if not isinstance(event, yaml.NodeEvent):
                continue
            if has_content and not (isinstance(event, yaml.ScalarEvent) and _scalar(event) is None):
                raise self._error(event, "a second document stands here, only one is taken")
            value = self._value(event, ())
            has_content = has_content or value is not None
            yield value

    def _value(self, event: yaml.Event, path: Path) -> Value:
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"nests deeper than {MAX_DEPTH} levels")
        self._note(path, event)
        self._count_up(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.NodeEvent)
        before = self._count
        tag = self._tag(event)
        if tag.startswith("!") and len(path) <= _NOTED_DEPTH:
            self._tags[path] = tag
        value = self._content(event, path)
        if event.anchor:
            self._refuse_in_plain(event, "anchor", event.anchor)
            self._anchors[event.anchor] = _Anchored(value, self._count - before)
        return value

    def _content(self, event: yaml.NodeEvent, path: Path) -> Value:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, yaml.ScalarEvent)
        return _scalar(event)

    def _sequence(self, path: Path) -> Value:
        found: list[Value] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> Value:
        own: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            self._note((*path, key), event)
            value = self._value(next(self._events), (*path, key))
            if key == _MERGE and _is_plain(event):
                self._merge(event, value, merged)
                continue
            if key in own:
                raise self._error(event, f"key {key!r} stands twice (first in line {first[key]})")
            own[key], first[key] = value, _line(event)
        return {**merged, **own}

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.ScalarEvent):
            self._tag(event)
            if event.anchor:
                self._refuse_in_plain(event, "anchor", event.anchor)
                self._anchors[event.anchor] = _Anchored(event.value, 1)
            return str(event.value)
        if isinstance(event, yaml.AliasEvent) and isinstance(name := self._alias(event), str):
            return name
        raise self._error(event, "a key must be plain text")

    def _merge(self, event: yaml.Event, value: Value, merged: dict[str, Value]) -> None:
        """Add what `<<: value` brings; of several mappings the earlier wins."""
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self._error(event, "`<<` takes a mapping or a list of mappings")
            for key, word in part.items():
                merged.setdefault(key, word)

    def _alias(self, event: yaml.AliasEvent) -> Value:
        name = event.anchor or ""
        self._refuse_in_plain(event, "alias", name)
        target = self._anchors.get(name)
        if target is None:
            raise self._error(event, f"alias *{name} has no finished anchor &{name} before it")
        self._count_up(event, target.size)
        return target.value

    def _tag(self, event: yaml.NodeEvent) -> str:
        tag: str = getattr(event, "tag", None) or ""
        if tag:
            self._refuse_in_plain(event, "tag", tag)
        return tag

    def _note(self, path: Path, event: yaml.Event) -> None:
        if len(path) <= _NOTED_DEPTH:
            self._lines.setdefault(path, _line(event))

    def _count_up(self, event: yaml.Event, more: int) -> None:
        self._count += more
        if self._count > MAX_VALUES:
            raise self._error(event, f"more than {MAX_VALUES} values, counting what the aliases stand for")

    def _refuse_in_plain(self, event: yaml.Event, what: str, name: str) -> None:
        if self._plain:
            raise SpecInvalid(f"{self._file}:{_line(event)}: {what} {name!r}: not taken here. Write the value out.")

    def _error(self, event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
        mark = yaml.Mark(self._file, 0, _line(event) - 1, 0, None, 0)
        return yaml.MarkedYAMLError(None, None, problem, mark)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _is_plain(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.implicit[0]


def _scalar(event: yaml.ScalarEvent) -> Value:
    """The value of a scalar, as Compose takes it: only a plain one can be something other than text."""
    text = str(event.value)
    is_own = (event.tag or "").startswith("!") and event.style in (None, "")  # `!reset null`
    if not is_own and (not event.implicit[0] or event.tag):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _integer(text)
    is_float = len(text) <= 40 and not text.isdigit() and _FLOAT.fullmatch(text)
    return float(text) if is_float else text


def _integer(text: str) -> int:
    """Underscores are dropped and 0755 is octal, as in Go's yaml.v3."""
    digits = text.replace("_", "")
    bare = digits.lstrip("+-")
    is_octal = len(bare) > 1 and bare.isdigit() and bare[0] == "0"
    try:
        return int(digits, 8 if is_octal else 0)
    except ValueError:  # 089 is no octal number.
        return int(digits)


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> SpecInvalid:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return SpecInvalid(
        f"{file}:{line}: {error.problem or error.context}. Mend the YAML; `docker compose config` shows it too."
    )
