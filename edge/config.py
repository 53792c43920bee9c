"""The edge's few settings, read once from the environment, and its limits with their reasons. Pure."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")

WORKERS_MAX = 256  # More than cores of any machine; each process takes 30 MB.


class BadSetting(ValueError):
    """An environment variable that cannot be used; the message names it, its value and the remedy."""


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
    """listen: (host, port) pairs. domain: what follows the label in a preview's host name.

    rate_limit: requests per second and host; 0 is none. workers: processes.
    shares_address: other processes listen where this one does.
    """

    listen: tuple[tuple[str, int], ...]
    redis_url: str
    domain: str
    rate_limit: float = 1000
    access_log: bool = False
    workers: int = 1
    shares_address: bool = False
    limits: Limits = field(default_factory=Limits)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment. Raises BadSetting."""
    return Settings(
        listen=_listen(environ.get("STAGELY_EDGE_LISTEN", "127.0.0.1:8080")),
        redis_url=_redis_url(environ.get("STAGELY_REDIS_URL", "redis://127.0.0.1:6379")),
        domain=_domain(environ.get("STAGELY_DOMAIN", "localhost")),
        rate_limit=int(_number("STAGELY_EDGE_RATE_LIMIT", environ.get("STAGELY_EDGE_RATE_LIMIT", "1000"))),
        access_log=_switch("STAGELY_EDGE_ACCESS_LOG", environ.get("STAGELY_EDGE_ACCESS_LOG", "0")),
        workers=_workers(environ.get("STAGELY_EDGE_WORKERS", "1")),
        limits=Limits(drain_s=_number("STAGELY_EDGE_DRAIN_S", environ.get("STAGELY_EDGE_DRAIN_S", "10"))),
    )


def _listen(text: str) -> tuple[tuple[str, int], ...]:
    addresses = []
    for part in text.split(","):
        host, colon, port = part.strip().rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise BadSetting(f"STAGELY_EDGE_LISTEN must be host:port, several divided by commas, got {part.strip()!r}")
        addresses.append((host.strip("[]"), int(port)))
    return tuple(addresses)


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


def _switch(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise BadSetting(f"{name} must be 0 or 1, got {text!r}")
    return text == "1"
