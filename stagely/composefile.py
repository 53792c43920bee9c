"""What the control plane needs to know of a repository's Compose files: services, builds, ports, images. Pure.

Docker Compose itself reads the files on the VM and has the last word; here only what decides on builds and URLs is
read. What this reader does not understand (include, extends from another file, inline Dockerfiles) is left to Compose:
such a service is built on the preview VM. Whatever a file holds, reading it costs no more than a few times MAX_VALUES.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stagely.errors import SpecInvalid
from stagely.interpolation import interpolate
from stagely.yamltext import MAX_VALUES, Document, Path, Value, parse

# Compose specification, 03-compose-file: preferred first, then the older names.
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_FILES = tuple(f.replace("compose.", "compose.override.") for f in DEFAULT_FILES)
MAX_BYTES = 1024 * 1024
_TOP_LEVEL = frozenset(
    {"version", "name", "include", "services", "networks", "volumes", "configs", "secrets", "models"}
)
# Keys of `build` that a builder VM understands, and those that change nothing about the image's content.
_BUILD_KEYS = frozenset({"context", "dockerfile", "target", "args"})
_BUILD_IGNORED = frozenset({"cache_from", "cache_to", "labels", "no_cache", "pull", "tags", "platforms"})
_READ_KEYS = frozenset({"image", "build", "provider", "extends", "ports", "profiles"})
_REMOTE = ("git@", "github.com/", "~", "/")
_MAX_EXTENDS = 100  # Services that extend one another in a row.


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    """`context` is a path from the repository's root; `args` are interpolated."""

    context: str
    dockerfile: str
    stage: str
    args: dict[str, str]


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service.

    `ports`: container ports that are published, in the file's order. `build` is None when no builder VM builds it,
    `builds_on_vm` says that Compose builds it on the preview VM. `place`: file, line and path, for errors.
    """

    name: str
    image: str = ""
    build: ServiceBuild | None = None
    builds_on_vm: bool = False
    ports: tuple[int, ...] = ()
    profiles: tuple[str, ...] = ()
    place: str = ""


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """`has_include`: there are services in other files that are not read here."""

    files: tuple[str, ...]
    services: tuple[ComposeService, ...] = field(default=())
    has_include: bool = False

    def service(self, name: str) -> ComposeService | None:
        return next((s for s in self.services if s.name == name), None)


def chosen_files(present: Mapping[str, str]) -> tuple[str, ...]:
    """The files that `docker compose` itself would take out of those present at the root, its override included."""
    main = next((f for f in DEFAULT_FILES if f in present), None)
    if main is None:
        raise SpecInvalid(
            f"no Compose file at the root of the repository: add {DEFAULT_FILES[3]}, or name one in stagely.yaml"
        )
    override = next((f for f in OVERRIDE_FILES if f in present), None)
    return (main, override) if override else (main,)


def read_project(files: Sequence[tuple[str, str]], variables: Mapping[str, str]) -> ComposeProject:
    """The services of (path, text) files, later merged over earlier. Raises SpecInvalid with file and line."""
    documents = [_document(path, text) for path, text in files]
    has_include = any(_mapping(d).get("include") for d in documents)
    merger = _Merger(documents[0])
    origin: dict[str, Document] = {}
    for document in documents:
        for name, body in _services(document).items():
            merger.add(document, name, body)
            origin.setdefault(name, document)
    if all(document.value is None for document in documents):
        raise documents[0].error((), "must be a mapping with `services:`")
    if not merger.services and not has_include:
        raise documents[0].error((), "has no services. Add at least one under `services:`.")
    reader = _Reader(posixpath.dirname(files[0][0]), _Filler(variables))
    services = tuple(reader.service(origin[name], name, merger.extended(name, ())) for name in merger.services)
    return ComposeProject(tuple(path for path, _ in files), services, has_include)


def _document(path: str, text: str) -> Document:
    if len(text.encode()) > MAX_BYTES:
        raise SpecInvalid(f"{path}: is larger than {MAX_BYTES} bytes")
    document = parse(text, path, plain=False)
    if document.value is not None and not isinstance(document.value, dict):
        raise document.error((), "must be a mapping with `services:`")
    for key in _mapping(document):
        if key not in _TOP_LEVEL and not key.startswith("x-"):
            raise document.error((key,), f"{key!r} is not a top-level key of Compose ({', '.join(sorted(_TOP_LEVEL))})")
    return document


def _mapping(document: Document) -> dict[str, Value]:
    return document.value if isinstance(document.value, dict) else {}


def _services(document: Document) -> dict[str, dict[str, Value]]:
    services = _mapping(document).get("services") or {}
    if not isinstance(services, dict):
        raise document.error(("services",), f"must be a mapping of services, got {type(services).__name__}")
    found: dict[str, dict[str, Value]] = {}
    for name, body in services.items():
        if body is not None and not isinstance(body, dict):
            raise document.error(("services", name), f"must be a mapping, got {type(body).__name__} {str(body)[:40]!r}")
        found[name] = {key: value for key, value in (body or {}).items() if key in _READ_KEYS}
    return found


class _Merger:
    """The services of several files, merged as Compose does it. Counts what it copies, up to MAX_VALUES."""

    def __init__(self, first: Document) -> None:
        self._first = first  # Stands in errors about all files together.
        self.services: dict[str, dict[str, Value]] = {}
        self._extended: dict[str, dict[str, Value]] = {}
        self._copied = 0

    def add(self, document: Document, name: str, body: dict[str, Value]) -> None:
        path: Path = ("services", name)
        if document.tags.get(path) == "!reset":
            self.services.pop(name, None)
        elif document.tags.get(path) == "!override":
            self.services[name] = body
        else:
            self.services[name] = self._merge(self.services.get(name, {}), body, path, document.tags)

    def extended(self, name: str, seen: tuple[str, ...]) -> dict[str, Value]:
        """The service with what it inherits from others of the same files."""
        if name not in self._extended:
            self._extended[name] = self._with_base(name, seen)
        return self._extended[name]

    def _with_base(self, name: str, seen: tuple[str, ...]) -> dict[str, Value]:
        body = self.services[name]
        extends = body.get("extends")
        base = extends.get("service") if isinstance(extends, dict) and not extends.get("file") else extends
        if not isinstance(base, str) or base not in self.services or base in (*seen, name):
            return body
        if len(seen) >= _MAX_EXTENDS:
            raise self._first.error(
                ("services", name), f"more than {_MAX_EXTENDS} services extend one another in a row"
            )
        own = {k: v for k, v in body.items() if k != "extends"}
        return self._merge(self.extended(base, (*seen, name)), own, (), {})

    def _merge(
        self, base: dict[str, Value], over: dict[str, Value], path: Path, tags: Mapping[Path, str]
    ) -> dict[str, Value]:
        self._count(len(base) + len(over))
        merged = dict(base)
        for key, value in over.items():
            tag = tags.get((*path, key))
            if tag == "!reset":
                merged.pop(key, None)
            elif tag == "!override":
                merged[key] = value
            elif key == "build":
                merged[key] = self._both(_build_map(merged.get(key)), _build_map(value), (*path, key), tags)
            else:
                merged[key] = self._both(merged.get(key), value, (*path, key), tags)
        return merged

    def _both(self, old: Value, value: Value, path: Path, tags: Mapping[Path, str]) -> Value:
        if isinstance(old, dict) and isinstance(value, dict):
            return self._merge(old, value, path, tags)
        if isinstance(old, list) and isinstance(value, list):
            self._count(len(old) + len(value))
            return [*old, *value]
        return value

    def _count(self, more: int) -> None:
        self._copied += more
        if self._copied > MAX_VALUES:
            raise self._first.error((), f"has more than {MAX_VALUES} values when merged. Make it smaller.")


def _build_map(value: Value) -> Value:
    """The long form of `build`, its `args` as a mapping (None: taken from the environment)."""
    if isinstance(value, str):
        return {"context": value}
    args = value.get("args") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(args, list):
        return value
    split = [str(part).partition("=") for part in args]
    return {**value, "args": {key: word if sign else None for key, sign, word in split}}


class _Filler:
    """Interpolation with a bound on all that it makes."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self._left = MAX_BYTES

    def __call__(self, value: Value) -> str:
        text = str(value)
        filled = interpolate(text, self.variables)
        self._left -= len(filled) if "$" in text else 0
        if self._left < 0:
            raise SpecInvalid(f"the variables make more than {MAX_BYTES} characters. Make them shorter.")
        return filled


class _Reader:
    """From a service's merged text to what we need of it. `folder` is the project's, from the repository's root."""

    def __init__(self, folder: str, fill: _Filler) -> None:
        self._folder = folder
        self._fill = fill

    def service(self, document: Document, name: str, body: dict[str, Value]) -> ComposeService:
        where = ("services", name)
        if not any(key in body for key in ("image", "build", "provider", "extends")):
            raise document.error(where, "has neither `image` nor `build`. Give it one of them.")
        try:
            build, on_vm = self._build(body.get("build"))
            return ComposeService(
                name=name,
                image=self._fill(body.get("image") or ""),
                build=build,
                builds_on_vm=on_vm,
                ports=tuple(self._ports(body.get("ports"))),
                profiles=tuple(self._fill(p) for p in _list(body.get("profiles"))),
                place=str(document.error(where, "")).rstrip(": "),
            )
        except SpecInvalid as error:
            raise document.error(where, str(error)) from error

    def _build(self, value: Value) -> tuple[ServiceBuild | None, bool]:
        """What a builder VM builds, and whether Compose builds it on the preview VM instead."""
        value = _build_map(value)
        if not isinstance(value, dict):
            return None, False
        context = self._fill(value.get("context") or ".")
        unknown = {key for key in value if not key.startswith("x-")} - _BUILD_KEYS - _BUILD_IGNORED
        if unknown or "://" in context or context.startswith(_REMOTE):
            return None, True
        build = ServiceBuild(
            context=self._inside(context),
            dockerfile=self._fill(value.get("dockerfile") or "Dockerfile"),
            stage=self._fill(value.get("target") or ""),
            args=self._args(value.get("args")),
        )
        return build, False

    def _inside(self, context: str) -> str:
        path = posixpath.normpath(posixpath.join(self._folder, context))
        if path.split("/")[0] == "..":
            raise SpecInvalid(f"build context {context!r} leads out of the repository")
        return path

    def _args(self, args: Value) -> dict[str, str]:
        given = {key: self._arg(key, word) for key, word in args.items()} if isinstance(args, dict) else {}
        return {key: word for key, word in given.items() if word is not None}

    def _arg(self, key: str, word: Value) -> str | None:
        return self._fill.variables.get(key) if word is None else self._fill(_scalar(word))

    def _ports(self, value: Value) -> list[int]:
        found = []
        for entry in _list(value):
            if isinstance(entry, dict):
                target, protocol = self._fill(entry.get("target") or ""), self._fill(entry.get("protocol") or "tcp")
            else:
                text, _, protocol = self._fill(entry).partition("/")
                target = text.rpartition(":")[2]
            if protocol.lower() in ("", "tcp"):
                found.append(_port(target, entry))
        return found


def _scalar(value: Value) -> str:
    """A build argument's text: Compose writes 1.0 as 1."""
    if isinstance(value, bool):
        return str(value).lower()
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e21
    return str(int(value)) if isinstance(value, float) and is_whole else str(value)


def _port(text: str, entry: Value) -> int:
    first = text.partition("-")[0]
    if not first.isdecimal() or len(first) > 5 or not 1 <= int(first) <= 65535:
        raise SpecInvalid(f"ports: {entry!r} names no container port from 1 to 65535")
    return int(first)


def _list(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []
