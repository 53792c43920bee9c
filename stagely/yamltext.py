"""YAML with places: values as plain Python, and the line each one stands on, for errors that people can act on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from stagely.errors import SpecInvalid

Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Document:
    """`value` is the whole file, `file` its path in the repository, `lines` maps ("preview", "ttl") to its line."""

    file: str
    value: Value
    lines: dict[tuple[str | int, ...], int]

    def error(self, path: tuple[str | int, ...], text: str) -> SpecInvalid:
        """An error at `path`: `stagely.yaml:7: preview/ttl: TEXT`."""
        line = next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), 1)
        place = "/".join(str(part) for part in path)
        return SpecInvalid(f"{self.file}:{line}: {place + ': ' if place else ''}{text}")


def parse(text: str, file: str, *, plain: bool) -> Document:
    """The document in `text`. `plain` refuses anchors, aliases and tags.

    Raises SpecInvalid for what is no YAML, has duplicate keys, keys that are no strings, or more than one document.
    """
    try:
        if plain:
            _refuse_fancy(text, file)
        node = yaml.compose(text, Loader=_Loader)
        loader = _Loader("")
        lines = dict(_lines(node, ())) if node is not None else {}
        value: Value = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecInvalid(
            f"{file}: is not YAML that we can read ({error}). Check it with `docker compose config`."
        ) from error
    return Document(file, value, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads Compose's own tags (!reset, !override) as their plain value and refuses duplicate keys."""


def _construct_any(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


def _construct_map(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
        if key.value in seen:
            problem = f"key {key.value!r} stands twice (first in line {seen[key.value]})"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen[key.value] = key.start_mark.line + 1
    loader.flatten_mapping(node)
    return {str(_text_of(key)): loader.construct_object(value, deep=True) for key, value in node.value}


def _text_of(key: yaml.Node) -> str:
    return key.value if isinstance(key.value, str) else repr(key.value)


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _construct_any)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)
# Compose and stagely.yaml know no dates; `1.10` and `2024-01-01` stay what the user typed where a string is wanted.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _construct_text)


def _refuse_fancy(text: str, file: str) -> None:
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
            line = token.start_mark.line + 1
            what = type(token).__name__.removesuffix("Token").lower()
            raise SpecInvalid(f"{file}:{line}: {what} {token.value!r}: not taken here. Write the value out.")


def _lines(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    if len(path) > 12:  # Deeper than any key we read; also ends recursive aliases.
        return
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, _text_of(key)), key.start_mark.line + 1
            yield from ((p, n) for p, n in _lines(value, (*path, _text_of(key))) if p != (*path, _text_of(key)))
    if isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _lines(value, (*path, i))


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> SpecInvalid:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return SpecInvalid(
        f"{file}:{line}: {error.problem or error.context}. Mend the YAML; `docker compose config` shows it too."
    )
