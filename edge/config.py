"""The edge's few settings, read once from the environment, and its limits with their reasons. Pure."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PORT_MAX = 65535
WORKERS_MAX = 256  # More than cores of any machine; each process takes 30 MB.
Address = tuple[str, int]
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")


class BadSetting(ValueError):
    """An environment variable that cannot be used; the message names it, its value and the remedy."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: what it is when it is not set, and what it means."""

    default: str
    meaning: str


VARIABLES = {
    "STAGELY_EDGE_LISTEN": Variable(
        "127.0.0.1:8080", "host:port for plain HTTP, several divided by commas; may be empty"
    ),
    "STAGELY_EDGE_TLS_LISTEN": Variable("", "the same for HTTPS; needs certificate and key"),
    "STAGELY_TLS_CERT": Variable("", "path of the wildcard certificate with its chain, PEM; watched, and reloaded"),
    "STAGELY_TLS_KEY": Variable("", "path of its key, PEM, not encrypted; watched too"),
    "STAGELY_EDGE_REDIRECT": Variable(
        "1", "1: plain HTTP answers 308 to https when HTTPS is on. 0: it serves previews too"
    ),
    "STAGELY_EDGE_HTTPS_PORT": Variable("0", "port in those redirects; 0: that of the first HTTPS address"),
    "STAGELY_EDGE_VM_CA": Variable(
        "",
        "path of the CA certificates by which VMs are known, PEM; watched, and reloaded; routes with `tls` need it",
    ),
    "STAGELY_DOMAIN": Variable("localhost", "previews are at <label>.<this domain>"),
    "STAGELY_REDIS_URL": Variable("redis://127.0.0.1:6379", "where the routes are; redis://, rediss:// or unix://"),
    "STAGELY_EDGE_RATE_LIMIT": Variable("1000", "requests per second and host, divided among workers; 0: no limit"),
    "STAGELY_EDGE_MAX_CONNECTIONS_PER_CLIENT": Variable(
        "0", "open connections from one address to one worker; 0: no limit, as behind a load balancer"
    ),
    "STAGELY_EDGE_WORKERS": Variable("1", "processes that share the addresses"),
    "STAGELY_EDGE_METRICS_LISTEN": Variable(
        "", "host:port where Prometheus reads counters, the next worker's at the next port; empty: nowhere"
    ),
    "STAGELY_EDGE_ACCESS_LOG": Variable("0", "1: one line per request"),
    "STAGELY_EDGE_DRAIN_S": Variable("10", "seconds from SIGTERM until running exchanges are cut"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Every wait and every size the edge bounds. Seconds and bytes; a test passes smaller ones."""

    head_s: float = 10.0  # Security notes E9: a slow head must not hold a connection.
    idle_s: float = 75.0  # Between two requests; nginx's keepalive_timeout, which browsers are used to.
    route_s: float = 3.0  # Longer than the feed needs to notice that Redis hangs (about 2 s).
    connect_s: float = 3.0  # One lost SYN (1 s) and its second try, no more: the VM is in the same region or gone.
    response_s: float = 120.0  # To the answer's first byte; a framework compiling its first page takes a minute.
    stream_s: float = 600.0  # Silence inside a body; server-sent events may be quiet for minutes.
    stall_s: float = 60.0  # A peer that takes no byte at all; nginx's send_timeout.
    tunnel_s: float = 3600.0  # A WebSocket without any frame for an hour has lost its browser.
    linger_s: float = 2.0  # RFC 9112 section 9.6: read on after the last answer, or a reset may destroy it on the way.
    drain_s: float = 10.0  # SIGTERM to exit; supervisors usually kill after more than that.
    sweep_s: float = 0.5  # How late a deadline may be noticed.
    pool_idle_s: float = 4.0  # Below the 5 s after which Node and uvicorn close an idle connection.
    pool_idle_max: int = 64  # Idle connections kept to one VM.
    pool_open_max: int = 1024  # Open connections to one VM, tunnels included: one preview cannot take all descriptors.
    hold_bytes: int = 65536  # What a client may send ahead while its request waits.


@dataclass(frozen=True, slots=True)
class Settings:
    """listen, tls_listen, metrics_listen: (host, port) pairs. domain: what follows the label in a preview's host name.

    certificate, key: PEM files; needed where tls_listen is not empty. redirects: plain listeners send visitors to
    https, at `https_port`. rate_limit: requests per second and host; 0 is none. connections_per_client: open at once
    from one address; 0 is no limit. vm_ca: PEM file of the CAs of preview VMs, None: no VM is reached by TLS. workers:
    processes. shares_address: other processes listen where this one does.
    """

    listen: tuple[Address, ...]
    redis_url: str
    domain: str
    rate_limit: float = 1000
    connections_per_client: int = 0
    workers: int = 1
    tls_listen: tuple[Address, ...] = ()
    vm_ca: Path | None = None
    certificate: Path = Path()
    key: Path = Path()
    redirects: bool = False
    https_port: int = 443
    metrics_listen: tuple[Address, ...] = ()
    access_log: bool = False
    shares_address: bool = False
    limits: Limits = field(default_factory=Limits)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment. Raises BadSetting."""
    text = {name: environ.get(name, variable.default) for name, variable in VARIABLES.items()}
    listen, tls_listen = (_listen(name, text[name]) for name in ("STAGELY_EDGE_LISTEN", "STAGELY_EDGE_TLS_LISTEN"))
    if not listen and not tls_listen:
        raise BadSetting("STAGELY_EDGE_LISTEN and STAGELY_EDGE_TLS_LISTEN are both empty: name an address")
    if tls_listen and not (text["STAGELY_TLS_CERT"] and text["STAGELY_TLS_KEY"]):
        raise BadSetting(
            "STAGELY_EDGE_TLS_LISTEN needs STAGELY_TLS_CERT and STAGELY_TLS_KEY, the paths of two PEM files"
        )
    workers = _workers(text["STAGELY_EDGE_WORKERS"])
    https_port = _whole("STAGELY_EDGE_HTTPS_PORT", text, PORT_MAX) or (tls_listen[0][1] if tls_listen else 443)
    return Settings(
        listen=listen,
        redis_url=_redis_url(text["STAGELY_REDIS_URL"]),
        domain=_domain(text["STAGELY_DOMAIN"]),
        rate_limit=_whole("STAGELY_EDGE_RATE_LIMIT", text),
        connections_per_client=_whole("STAGELY_EDGE_MAX_CONNECTIONS_PER_CLIENT", text),
        workers=workers,
        vm_ca=Path(text["STAGELY_EDGE_VM_CA"]) if text["STAGELY_EDGE_VM_CA"] else None,
        tls_listen=tls_listen,
        certificate=Path(text["STAGELY_TLS_CERT"]),
        key=Path(text["STAGELY_TLS_KEY"]),
        redirects=_switch("STAGELY_EDGE_REDIRECT", text["STAGELY_EDGE_REDIRECT"]) and bool(tls_listen),
        https_port=https_port,
        metrics_listen=_metrics_listen(text["STAGELY_EDGE_METRICS_LISTEN"], workers),
        access_log=_switch("STAGELY_EDGE_ACCESS_LOG", text["STAGELY_EDGE_ACCESS_LOG"]),
        limits=Limits(drain_s=_number("STAGELY_EDGE_DRAIN_S", text["STAGELY_EDGE_DRAIN_S"])),
    )


def help_text() -> str:
    """Every variable with its default and meaning."""
    lines = ["python -m edge: previews by host name. Settings are environment variables:", ""]
    for name, variable in VARIABLES.items():
        default = f" [{variable.default}]" if variable.default else ""
        lines += [f"{name}{default}", f"    {variable.meaning}"]
    return "\n".join([*lines, "", "docs/edge-routing.md describes the rest."])


def _listen(name: str, text: str) -> tuple[Address, ...]:
    addresses = []
    for part in text.split(",") if text.strip() else ():
        host, colon, port = part.strip().rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > PORT_MAX:
            raise BadSetting(f"{name} must be host:port, several divided by commas, got {part.strip()!r}")
        addresses.append((host.strip("[]"), int(port)))
    return tuple(addresses)


def _metrics_listen(text: str, workers: int) -> tuple[Address, ...]:
    addresses = _listen("STAGELY_EDGE_METRICS_LISTEN", text)
    if any(port + workers - 1 > PORT_MAX for _, port in addresses):
        raise BadSetting(f"STAGELY_EDGE_METRICS_LISTEN must leave a port for each of {workers} workers, got {text!r}")
    return addresses


def _redis_url(text: str) -> str:
    # The value may hold a password: it is not repeated.
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise BadSetting("STAGELY_REDIS_URL must begin with redis://, rediss:// or unix://")
    try:
        urllib.parse.urlsplit(text).port  # noqa: B018  # Reading it is the check.
    except ValueError:
        raise BadSetting("STAGELY_REDIS_URL has a port that is no number from 0 to 65535") from None
    return text


def _domain(text: str) -> str:
    domain = text.lower()
    if not _DOMAIN.match(domain):
        raise BadSetting(f"STAGELY_DOMAIN must be a bare domain name without port or dot in front, got {text!r}")
    return domain


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= WORKERS_MAX:
        raise BadSetting(f"STAGELY_EDGE_WORKERS must be a number of processes from 1 to {WORKERS_MAX}, got {text!r}")
    return int(text)


def _number(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise BadSetting(f"{name} must be a number from 0 to 999999999, got {text!r}")
    return float(text)


def _whole(name: str, text: Mapping[str, str], most: int = 999_999_999) -> int:
    if not re.fullmatch("[0-9]{1,9}", text[name]) or int(text[name]) > most:
        raise BadSetting(f"{name} must be a whole number from 0 to {most}, got {text[name]!r}")
    return int(text[name])


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise BadSetting(f"{name} must be 0 or 1, got {text!r}")
    return text == "1"
