"""Compose's variable interpolation over one string. Pure.

Source: Compose specification, 12-interpolation: $VAR, ${VAR}, ${VAR:-d}, ${VAR-d}, ${VAR:?e}, ${VAR?e}, ${VAR:+r},
${VAR+r}, $$ for a dollar; defaults may nest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from stagely.errors import SpecInvalid

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its variables filled in; an unset one is empty, as in Compose.

    Raises SpecInvalid for a required variable that is missing and for a brace that is never closed.
    """
    out, i = [], 0
    while i < len(text):
        if text[i] != "$":
            out.append(text[i])
            i += 1
        elif text.startswith("$$", i):
            out.append("$")
            i += 2
        elif text.startswith("${", i):
            end = _closing(text, i + 2)
            out.append(_expand(text[i + 2 : end], variables))
            i = end + 1
        elif match := _NAME.match(text, i + 1):
            out.append(variables.get(match.group(), ""))
            i = match.end()
        else:
            raise SpecInvalid(f"{text!r}: a lone $ at character {i + 1}. Write $$ for a dollar sign.")
    return "".join(out)


def read_env_file(text: str) -> dict[str, str]:
    """The variables of a `.env` file: KEY=VALUE lines, `export` and quotes allowed, # comments."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip().removeprefix("export ").strip()
        key, sign, value = line.partition("=")
        if sign and _NAME.fullmatch(key.strip()):
            found[key.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()


def _closing(text: str, start: int) -> int:
    depth = 1
    for i in range(start, len(text)):
        if text.startswith("${", i):
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
    raise SpecInvalid(f"{text!r}: a ${{ is never closed. Add the missing }}.")


def _expand(inner: str, variables: Mapping[str, str]) -> str:
    match = _NAME.match(inner)
    if match is None:
        raise SpecInvalid(f"${{{inner}}}: a variable name must follow ${{.")
    name, rest = match.group(), inner[match.end() :]
    operator = next((o for o in _OPERATORS if rest.startswith(o)), "")
    if rest and not operator:
        raise SpecInvalid(f"${{{inner}}}: {rest!r} is no operator of Compose's interpolation.")
    value, word = variables.get(name), rest[len(operator) :]
    is_set = bool(value) if operator.startswith(":") else value is not None
    return _applied(operator[-1:], value or "", word, is_set, name, variables)


def _applied(kind: str, value: str, word: str, is_set: bool, name: str, variables: Mapping[str, str]) -> str:
    if kind == "+":
        return interpolate(word, variables) if is_set else ""
    if is_set or kind == "":
        return value
    if kind == "?":
        raise SpecInvalid(
            f"variable {name} is required: {interpolate(word, variables) or 'it is not set'}. Set it in .env."
        )
    return interpolate(word, variables)
