"""The route record: what Redis holds under `route:{label}` and what the edge reads. Pure; the standard library only.

The core writes it (announce, refresh, withdraw), the edge only reads. `{label}` is the DNS label before the preview
domain: the environment's hash for the main service, `{service}-{hash}` for the others. The value is JSON, UTF-8, at
most MAX_RECORD_BYTES. A key lives for TTL_S and is refreshed by the agent's heartbeats.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass

TTL_S = 3600  # Architecture overview: one hour, refreshed by heartbeats every 30 s.
MAX_RECORD_BYTES = 4096
VM_DOMAIN = "vm.stagely.internal"  # ICANN reserved `.internal` for private use in 2024: no public CA may certify it.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1123: one DNS label, lower case.


class RouteStatus(enum.StrEnum):
    """`READY` is forwarded; `BUILDING` (not there yet) and `FAILED` get a page."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class BadRoute(ValueError):
    """A record that is no Route; the edge treats its host as unknown and counts it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one preview host leads, and what its page says while it leads nowhere.

    ip, port: the VM's address as the cloud names it and the ingress port there; "" and 0 unless `status` is ready.
    project, team, pr: become X-Stagely-Project, -Team and -PR. environment: its id.
    tls: the ingress speaks TLS with the environment's identity, `vm_name` (false only in dev).
    phase: one short sentence for the page, e.g. "building 2 images". since: Unix seconds when that phase began.
    log_url: where a person reads more, or "".
    """

    status: RouteStatus
    project: str
    team: str
    pr: int
    environment: str
    ip: str = ""
    port: int = 0
    tls: bool = False
    phase: str = ""
    since: float = 0.0
    log_url: str = ""


def vm_name(environment: str) -> str:
    """The DNS name that the certificate of an environment's VM bears, whatever address the VM has.

    A digest: every id becomes a valid label, and who is dialled by mistake learns nothing from the handshake's SNI.
    """
    return f"{hashlib.sha256(environment.encode()).hexdigest()[:32]}.{VM_DOMAIN}"


def is_label(text: str) -> bool:
    """Whether `text` is one valid lower-case DNS label."""
    return _LABEL.match(text) is not None


def key_of(label: str) -> str:
    """The Redis key of one label. Raises BadRoute for what is no label."""
    if not is_label(label):
        raise BadRoute(f"{label[:80]!r} is not a DNS label of lower-case letters, digits and inner hyphens")
    return f"route:{label}"


def encode(route: Route) -> bytes:
    """The record's bytes. Raises BadRoute when the route could not be decoded again."""
    raw = json.dumps(dataclasses.asdict(route), separators=(",", ":")).encode()
    decode(raw)
    return raw


def decode(raw: bytes | str) -> Route:
    """The Route of one record. Unknown fields are ignored (a newer core may write more). Raises BadRoute."""
    if len(raw) > MAX_RECORD_BYTES:
        raise BadRoute(f"record has {len(raw)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        loaded = json.loads(raw)
        known = {f.name: loaded[f.name] for f in dataclasses.fields(Route) if f.name in loaded}
        route = Route(**{**known, "status": RouteStatus(str(known.get("status")))})
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRoute(f"record is no route: {error}") from error
    _check(route)
    return route


def _check(route: Route) -> None:
    for f in dataclasses.fields(route):
        value, kind = getattr(route, f.name), str(f.type)
        wanted = {"str": str, "int": int, "bool": bool, "float": (int, float), "RouteStatus": RouteStatus}[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):  # type: ignore[arg-type]
            raise BadRoute(f"{f.name} must be {kind}, got {type(value).__name__}")
        if isinstance(value, str) and any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise BadRoute(f"{f.name} holds a control character")  # It may become a header of the forwarded request.
    if route.status is RouteStatus.READY:
        _check_address(route)


def _check_address(route: Route) -> None:
    try:
        ipaddress.ip_address(route.ip)
    except ValueError as error:
        raise BadRoute(f"ip must be an IP address, got {route.ip[:60]!r}") from error
    if not 1 <= route.port <= 65535:
        raise BadRoute(f"port must be from 1 to 65535, got {route.port}")
