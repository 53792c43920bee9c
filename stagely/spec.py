"""stagely.yaml: read, checked, with errors that name file, line, path, value and remedy. Pure.

docs/stagely-yaml.md holds the annotated example; the tests parse it.
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stagely.errors import SpecInvalid
from stagely.plan import DEFAULT_HEALTH_TIMEOUT_S, DEFAULT_TTL_S
from stagely.yamltext import Document, parse

FILE = "stagely.yaml"
MAX_BYTES = 64 * 1024
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: Any) -> Any:  # Any: whatever YAML holds; a wrong one is pydantic's error.
    match = re.fullmatch(r"(\d{1,6})([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number with a unit, such as 90s, 5m, 24h or 2d")
    return float(int(match[1]) * _UNITS[match[2]])


def _as_list(value: Any) -> Any:  # Any: as above.
    return [value] if isinstance(value, str) else value


def _inside(path: str) -> str:
    tidy = posixpath.normpath(path)
    if not path or len(path) > 400 or path.startswith("/") or "\\" in path or tidy.split("/")[0] == "..":
        raise ValueError("must be a relative path inside the repository")
    return tidy


def _between(low: str, high: str) -> AfterValidator:
    least, most = _seconds(low), _seconds(high)

    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return AfterValidator(check)


Ttl = Annotated[float, BeforeValidator(_seconds), _between("1m", "30d")]
HealthTimeout = Annotated[float, BeforeValidator(_seconds), _between("5s", "1h")]
Arch = Literal["amd64", "arm64"]
RelativePath = Annotated[str, AfterValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BuildSpec(_Part):
    """One target. What is not given comes from the Compose service of the same name (or of `service`)."""

    service: str = ""
    context: RelativePath | None = None
    dockerfile: RelativePath | None = None
    target: str | None = None
    args: dict[str, str] = {}
    arch: list[Arch] = []


class PreviewPart(_Part):
    provider: Literal["local", "aws", "digitalocean", "hetzner"] | None = None
    region: str = ""
    size: str = ""
    arch: Arch | None = None
    ttl: Ttl = DEFAULT_TTL_S
    health_timeout: HealthTimeout = DEFAULT_HEALTH_TIMEOUT_S


class Triggers(_Part):
    labels: list[str] = []
    drafts: bool = False
    base: list[str] = []
    paths: list[str] = []


class Spec(_Part):
    """The whole file; every key has a default, so an empty or missing file is the default Spec."""

    version: Literal[1] = 1
    compose: Annotated[list[RelativePath], BeforeValidator(_as_list)] = []
    builds: dict[str, BuildSpec] | None = None
    preview: PreviewPart = PreviewPart()
    expose: dict[str, Annotated[int, Field(ge=1, le=65535)]] = {}
    secrets: dict[str, list[str]] | None = None
    keep_going: bool = False
    triggers: Triggers = Triggers()


def read_spec(text: str | None) -> Spec:
    """The Spec of stagely.yaml's text; None (no such file) is the default. Raises SpecInvalid."""
    if text is None or not text.strip():
        return Spec()
    if len(text.encode()) > MAX_BYTES:
        raise SpecInvalid(f"{FILE}: has {len(text.encode())} bytes, more than {MAX_BYTES}. Keep data out of it.")
    document = parse(text, FILE, plain=True)
    if document.value is None:
        return Spec()
    if not isinstance(document.value, dict):
        raise document.error((), f"must be a mapping such as `version: 1`, got {type(document.value).__name__}")
    try:
        return Spec.model_validate(document.value)
    except ValidationError as error:
        raise _readable(document, error) from error


def _readable(document: Document, error: ValidationError) -> SpecInvalid:
    first = error.errors()[0]
    path = tuple(part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    if first["type"] == "extra_forbidden":
        return document.error(path, f"unknown key {path[-1]!r}. {_known_keys(path)}")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message if message.startswith("must ") else f"must be {message}"
    return document.error(path, f"{message}; got {first['input']!r:.60}")


def _known_keys(path: tuple[int | str, ...]) -> str:
    parts: dict[str, type[_Part]] = {"preview": PreviewPart, "builds": BuildSpec, "triggers": Triggers}
    model = parts.get(str(path[0]), Spec) if len(path) > 1 else Spec
    return "Known here: " + ", ".join(model.model_fields)
