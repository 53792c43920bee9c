"""What the control plane needs to know of a repository's Compose files: services, builds, ports, images. Pure.

Docker Compose itself reads the files on the VM and has the last word; here only what decides on builds and URLs is
read. What this reader does not understand (include, extends from another file, inline Dockerfiles) is left to Compose:
such a service is built on the preview VM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stagely.errors import SpecInvalid
from stagely.interpolation import interpolate
from stagely.yamltext import Document, Value, parse

# Compose specification, 03-compose-file: preferred first, then the older names.
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_FILES = tuple(f.replace("compose.", "compose.override.") for f in DEFAULT_FILES)
MAX_BYTES = 1024 * 1024
_TOP_LEVEL = frozenset(
    {"version", "name", "include", "services", "networks", "volumes", "configs", "secrets", "models"}
)
# Keys of `build` that a builder VM understands, and those that change nothing about the image's content.
_BUILD_KEYS = frozenset({"context", "dockerfile", "target", "args"})
_BUILD_IGNORED = frozenset({"cache_from", "cache_to", "no_cache", "pull", "tags", "platforms"})


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    """`context` is a path inside the repository, relative to the project folder; `args` are interpolated."""

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
    files: tuple[str, ...]
    services: tuple[ComposeService, ...] = field(default=())

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
    merged: dict[str, dict[str, Value]] = {}
    origin: dict[str, Document] = {}
    for document in documents:
        for name, body in _services(document).items():
            merged[name] = _merge(merged.get(name, {}), body)
            origin.setdefault(name, document)
    if not merged and not any(_has_include(d) for d in documents):
        raise documents[0].error((), "has no services. Add at least one under `services:`.")
    extended = {name: _extended(name, merged, ()) for name in merged}
    services = tuple(_service(origin[name], name, body, variables) for name, body in extended.items())
    return ComposeProject(tuple(path for path, _ in files), services)


def _document(path: str, text: str) -> Document:
    if len(text.encode()) > MAX_BYTES:
        raise SpecInvalid(f"{path}: is larger than {MAX_BYTES} bytes")
    document = parse(text, path, plain=False)
    if not isinstance(document.value, dict):
        raise document.error((), "must be a mapping with `services:`")
    for key in document.value:
        if key not in _TOP_LEVEL and not key.startswith("x-"):
            raise document.error((key,), f"{key!r} is not a top-level key of Compose ({', '.join(sorted(_TOP_LEVEL))})")
    return document


def _has_include(document: Document) -> bool:
    return isinstance(document.value, dict) and bool(document.value.get("include"))


def _services(document: Document) -> dict[str, dict[str, Value]]:
    assert isinstance(document.value, dict)
    services = document.value.get("services") or {}
    if not isinstance(services, dict):
        raise document.error(("services",), f"must be a mapping of services, got {type(services).__name__}")
    found: dict[str, dict[str, Value]] = {}
    for name, body in services.items():
        if body is not None and not isinstance(body, dict):
            raise document.error(("services", name), f"must be a mapping, got {type(body).__name__} {str(body)[:40]!r}")
        found[name] = body or {}
    return found


def _merge(base: dict[str, Value], over: dict[str, Value]) -> dict[str, Value]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "build":
            old, value = _build_map(old), _build_map(value)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


def _build_map(value: Value) -> Value:
    return {"context": value} if isinstance(value, str) else value


def _extended(name: str, services: dict[str, dict[str, Value]], seen: tuple[str, ...]) -> dict[str, Value]:
    body = services[name]
    extends = body.get("extends")
    base = extends.get("service") if isinstance(extends, dict) and not extends.get("file") else extends
    if not isinstance(base, str) or base not in services or base in seen:
        return body
    own = {k: v for k, v in body.items() if k != "extends"}
    return _merge(_extended(base, services, (*seen, name)), own)


def _service(document: Document, name: str, body: dict[str, Value], variables: Mapping[str, str]) -> ComposeService:
    where = ("services", name)
    if not any(key in body for key in ("image", "build", "extends")):
        raise document.error(where, "has neither `image` nor `build`. Give it one of them.")
    try:
        build, on_vm = _build(body.get("build"), variables)
        return ComposeService(
            name=name,
            image=interpolate(str(body.get("image") or ""), variables),
            build=build,
            builds_on_vm=on_vm,
            ports=tuple(_ports(body.get("ports"), variables)),
            profiles=tuple(str(p) for p in _list(body.get("profiles"))),
            place=str(document.error(where, "")).rstrip(": "),
        )
    except SpecInvalid as error:
        raise document.error(where, str(error)) from error


def _build(value: Value, variables: Mapping[str, str]) -> tuple[ServiceBuild | None, bool]:
    value = _build_map(value)
    if not isinstance(value, dict):
        return None, False
    context = interpolate(str(value.get("context") or "."), variables)
    unknown = set(value) - _BUILD_KEYS - _BUILD_IGNORED
    if unknown or "://" in context or context.startswith(("git@", "~", "/")):
        return None, True
    if ".." in context.split("/"):
        raise SpecInvalid(f"build context {context!r} leads out of the repository")
    build = ServiceBuild(
        context=context,
        dockerfile=interpolate(str(value.get("dockerfile") or "Dockerfile"), variables),
        stage=interpolate(str(value.get("target") or ""), variables),
        args=_args(value.get("args"), variables),
    )
    return build, False


def _args(value: Value, variables: Mapping[str, str]) -> dict[str, str]:
    if isinstance(value, dict):
        pairs = [(key, None if v is None else _scalar(v)) for key, v in value.items()]
    else:
        split = [str(part).partition("=") for part in _list(value)]
        pairs = [(key, word if sign else None) for key, sign, word in split]
    given = {key: variables.get(key) if word is None else interpolate(word, variables) for key, word in pairs}
    return {key: word for key, word in given.items() if word is not None}


def _scalar(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ports(value: Value, variables: Mapping[str, str]) -> list[int]:
    found = []
    for entry in _list(value):
        if isinstance(entry, dict):
            target, protocol = str(entry.get("target") or ""), str(entry.get("protocol") or "tcp")
        else:
            text, _, protocol = interpolate(str(entry), variables).partition("/")
            target = text.rpartition(":")[2]
        if protocol in ("", "tcp"):
            found.append(_port(target, entry))
    return found


def _port(text: str, entry: Value) -> int:
    first = text.partition("-")[0]
    if not first.isdigit() or not 1 <= int(first) <= 65535:
        raise SpecInvalid(f"ports: {entry!r} names no container port from 1 to 65535")
    return int(first)


def _list(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []
