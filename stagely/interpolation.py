"""Compose's variable interpolation over one string. Pure.

Source: Compose specification, 12-interpolation: $VAR, ${VAR}, ${VAR:-d}, ${VAR-d}, ${VAR:?e}, ${VAR?e}, ${VAR:+r},
${VAR+r}, $$ for a dollar; defaults may nest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from stagely.errors import SpecInvalid

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*[=:][ \t]*")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\([nrt"\\$])')
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "$": "$$"}
MAX_RESULT = 128 * 1024  # Linux takes no longer environment variable.
MAX_NESTED = 20
MAX_ENV_FILE = 1024 * 1024


class TooLong(SpecInvalid):
    """Variables that refer to each other make a text, or all of them together, too long."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its variables filled in; an unset one is empty, as in Compose.

    Raises SpecInvalid for a required variable that is missing and for a brace that is never closed, TooLong for more
    than MAX_RESULT characters or defaults nested deeper than MAX_NESTED.
    """
    return text if "$" not in text else _interpolated(text, variables, 0)


def _interpolated(text: str, variables: Mapping[str, str], depth: int) -> str:
    if depth > MAX_NESTED:
        raise TooLong(f"{text[:40]!r}: variables nest deeper than {MAX_NESTED} levels")
    out: list[str] = []
    for part in _parts(text, variables, depth):
        out.append(part)
        if len(out) % 64 == 0 or len(part) > 1024:
            out = [_bounded("".join(out), text)]
    return _bounded("".join(out), text)


def _bounded(found: str, text: str) -> str:
    if len(found) > MAX_RESULT:
        raise TooLong(f"{text[:40]!r}: is more than {MAX_RESULT} characters with its variables filled in")
    return found


def _parts(text: str, variables: Mapping[str, str], depth: int) -> Iterator[str]:
    i = 0
    while i < len(text):
        if text[i] != "$":
            end = text.find("$", i) % (len(text) + 1)
            yield text[i:end]
            i = end
        elif text.startswith("$$", i):
            yield "$"
            i += 2
        elif text.startswith("${", i):
            end = _closing(text, i + 2)
            yield _expand(text[i + 2 : end], variables, depth)
            i = end + 1
        elif match := _NAME.match(text, i + 1):
            yield variables.get(match.group(), "")
            i = match.end()
        else:
            raise SpecInvalid(f"{text[:200]!r}: a lone $ at character {i + 1}. Write $$ for a dollar sign.")


def read_env_file(text: str) -> dict[str, str]:
    """The variables of a `.env` file, as Compose reads it.

    KEY=VALUE or KEY: VALUE, `export`, # comments. Quoted values may have several lines. Variables in double-quoted and
    bare values are filled in from the lines above; what cannot be filled in stays as written, Compose has the last
    word. Raises TooLong beyond MAX_ENV_FILE characters, before or after.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    i, left = 0, MAX_ENV_FILE - len(text)
    while i < len(text):
        end = text.find("\n", i) % (len(text) + 1)
        if match := _ASSIGNMENT.match(text, i, end):
            value, i = _env_value(text, match.end(), end, found)
            found[match[1]] = value
            left -= len(value)
            end = text.find("\n", i) % (len(text) + 1)
        if left < 0:
            raise TooLong(f".env: is more than {MAX_ENV_FILE} characters, its variables filled in")
        i = end + 1
    return found


def _env_value(text: str, start: int, end: int, known: Mapping[str, str]) -> tuple[str, int]:
    """The value that starts at `start` on the line up to `end`, and where it ends."""
    if match := _SINGLE.match(text, start):
        return match[1], match.end()
    if match := _DOUBLE.match(text, start):
        unescaped = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), match[1])
        return _filled(unescaped, known), match.end()
    bare = re.split(r"(?:^|\s)#", text[start:end], maxsplit=1)[0].rstrip()
    return _filled(bare, known), end


def _filled(value: str, known: Mapping[str, str]) -> str:
    try:
        return interpolate(value, known)
    except TooLong:
        raise
    except SpecInvalid:
        return value


def _closing(text: str, start: int) -> int:
    depth = 1
    for i in range(start, len(text)):
        if text.startswith("${", i):
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
    raise SpecInvalid(f"{text[:200]!r}: a ${{ is never closed. Add the missing }}.")


def _expand(inner: str, variables: Mapping[str, str], depth: int) -> str:
    match = _NAME.match(inner)
    if match is None:
        raise SpecInvalid(f"${{{inner[:200]}}}: a variable name must follow ${{.")
    name, rest = match.group(), inner[match.end() :]
    operator = next((o for o in _OPERATORS if rest.startswith(o)), "")
    if rest and not operator:
        raise SpecInvalid(f"${{{inner[:200]}}}: {rest[:40]!r} is no operator of Compose's interpolation.")
    value, word = variables.get(name), rest[len(operator) :]
    is_set = bool(value) if operator.startswith(":") else value is not None
    kind = operator[-1:]
    if kind == "+":
        return _interpolated(word, variables, depth + 1) if is_set else ""
    if is_set or kind == "":
        return value or ""
    if kind == "?":
        why = _interpolated(word, variables, depth + 1) or "it is not set"
        raise SpecInvalid(f"variable {name} is required: {why}. Set it in .env.")
    return _interpolated(word, variables, depth + 1)
