"""What is left of one environment after its closing: asked of each place itself, never of our own bookkeeping alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from stagely.cli.api import ApiClient
from stagely.cli.bodies import EnvironmentView
from stagely.dev import docker
from stagely.processes import is_alive

REDIS_TIMEOUT_S = 5.0
GONE = "gone"


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Names of what is still there, by kind; empty lists are what one hopes for."""

    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    ledger: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    def found(self) -> dict[str, list[str]]:
        """Kind to names, for every kind."""
        return {kind: list(getattr(self, kind)) for kind in self.__dataclass_fields__}

    def is_empty(self) -> bool:
        return not any(self.found().values())


def of_environment(
    environment: EnvironmentView, api: ApiClient, installation: str, redis_url: str, registry: Path
) -> Leftovers:
    """Look while the system still runs. The installation's own network stays until it stops."""
    labelled = asyncio.run(docker.labelled(installation))
    return Leftovers(
        containers=labelled.containers,
        volumes=labelled.volumes,
        networks=tuple(name for name in labelled.networks if name != f"stagely-{installation}"),
        routes=_routes(redis_url),
        manifests=manifests(registry, f"{environment.project_id}/{environment.id}"),
        ledger=tuple(f"{vm.id} is {vm.state}" for vm in api.vms(environment.id) if vm.state != GONE),
    )


def of_system(installation: str, pids: Sequence[int]) -> Leftovers:
    """Look after the system has stopped: then its network and its processes are gone too."""
    labelled = asyncio.run(docker.labelled(installation))
    alive = tuple(str(pid) for pid in pids if is_alive(pid))
    return Leftovers(labelled.containers, labelled.volumes, labelled.networks, processes=alive)


def manifests(registry: Path, prefix: str) -> tuple[str, ...]:
    """Tags and manifests under `prefix` in the embedded registry's own files: they may have no tag to ask for.

    Source: distribution, registry/storage/paths.go: a deleted manifest has no `link` file any more.
    """
    below = registry / "store" / "docker" / "registry" / "v2" / "repositories" / prefix
    links = [*below.glob("*/_manifests/revisions/sha256/*/link"), *below.glob("*/_manifests/tags/*/current/link")]
    return tuple(str(link.parent.relative_to(below)) for link in links)


def _routes(redis_url: str) -> tuple[str, ...]:
    """The demo's installation has one environment, so no route at all may be left."""
    with Redis.from_url(
        redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, decode_responses=True
    ) as redis:
        return tuple(str(key) for key in redis.scan_iter("route:*"))
