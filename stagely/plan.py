"""What one push will do: the builds, the services to run and expose. Values only; workflows carry them.

`stagely.spec` reads stagely.yaml, `stagely.planner` turns it and the Compose file into a Plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_TTL_S = 24 * 3600.0  # From the last deploy (architecture section 12).
DEFAULT_HEALTH_TIMEOUT_S = 300.0
DEFAULT_BUILD_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class BuildTarget:
    """One image to build: target x architecture is one build job.

    `service` is the Compose service that runs it, `name` the target's name (a path component of its repository).
    `context` and `dockerfile` are relative paths, `dockerfile` relative to the context. `also` are further services
    that run this image: those whose build is the same.
    """

    name: str
    service: str
    context: str
    dockerfile: str = "Dockerfile"
    stage: str = ""
    args: dict[str, str] = field(default_factory=dict)
    arch: tuple[str, ...] = ("amd64",)
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expose:
    """`service` answers HTTP on container port `port`; `label` is its DNS label prefix, "" for the main URL."""

    service: str
    port: int
    label: str = ""


def host_label(prefix: str, hash: str) -> str:
    """The DNS label of one exposed service before the preview domain: `HASH`, or `PREFIX-HASH`."""
    return f"{prefix}-{hash}" if prefix else hash


@dataclass(frozen=True, slots=True)
class PreviewSpec:
    """The preview VM. `region` and `size` "" mean the provider's default."""

    provider: str = "local"
    region: str = ""
    size: str = ""
    arch: str = "amd64"
    ttl_s: float = DEFAULT_TTL_S
    health_timeout_s: float = DEFAULT_HEALTH_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a push needs, read from the repository at one commit.

    `compose_files`: paths in Compose's order. `pull`: images of services that are not built, for an early pull.
    `exposes`: the first is the main URL. `services`: all service names, for display.
    """

    compose_files: tuple[str, ...]
    services: tuple[str, ...]
    builds: tuple[BuildTarget, ...]
    exposes: tuple[Expose, ...]
    preview: PreviewSpec
    pull: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    keep_going: bool = False
    build_timeout_s: float = DEFAULT_BUILD_TIMEOUT_S
