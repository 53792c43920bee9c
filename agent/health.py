"""Whether the preview stands, from what its containers show; and how its machine is. Pure but for two small reads.

A service has settled when it is healthy, or has no health check and has run for SETTLED_S without a restart, or was a
job that ended with 0. It has failed when it is unhealthy, ended with another code, or keeps crashing although
everything else has settled. (`docker compose up --wait` calls a crash loop under `restart: always` healthy.)
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.containers import Container

SETTLED_S = 5.0  # The overview's rule for services that say nothing about their health.
CRASHES = 5  # Docker waits 0.1, 0.2, 0.4, ... s between restarts: five take 3 s. Fewer may be an impatient start.
PATIENCE_S = 10.0  # How long others have been up before a service that keeps crashing can no longer blame them.


class Verdict(enum.StrEnum):
    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`why` continues "service NAME ..."; `container` is the one that it is about."""

    verdict: Verdict
    why: str = ""
    container: Container | None = None


_SETTLED = Judgement(Verdict.SETTLED)


def judge(
    expected: Mapping[str, int], exposed: Collection[str], containers: Sequence[Container], now: float
) -> dict[str, Judgement]:
    """A judgement on each service of `expected` (name: replicas). `exposed` ones must run: no job that ends."""
    found: dict[str, Judgement] = {}
    for service, replicas in expected.items():
        own = [container for container in containers if container.service == service]
        found[service] = _service(own, replicas, service in exposed, now)
    return found | _crash_loops(expected, containers, found)


def _service(own: Sequence[Container], replicas: int, is_exposed: bool, now: float) -> Judgement:
    judgements = [_container(container, is_exposed, now) for container in own]
    for verdict in (Verdict.FAILED, Verdict.PENDING):
        for judgement in judgements:
            if judgement.verdict is verdict:
                return judgement
    return _SETTLED if len(own) >= replicas else Judgement(Verdict.PENDING, "has not been created yet")


def _container(container: Container, is_exposed: bool, now: float) -> Judgement:
    match container.status:
        case "running":
            return _running(container, now)
        case "exited" | "dead":
            return _ended(container, is_exposed)
        case "restarting":
            return Judgement(Verdict.PENDING, f"keeps restarting (exit code {container.exit_code})", container)
        case "created" if container.start_error:
            return Judgement(Verdict.FAILED, f"could not be started: {container.start_error}", container)
        case "created":
            return Judgement(Verdict.PENDING, "is waiting for the services it depends on", container)
        case _:
            return Judgement(Verdict.PENDING, f"is {container.status}", container)


def _running(container: Container, now: float) -> Judgement:
    match container.health:
        case "healthy":
            return _SETTLED
        case "unhealthy":
            return Judgement(Verdict.FAILED, f"is unhealthy: {_probe(container)}", container)
        case "":
            if now - container.started_at >= SETTLED_S:
                return _SETTLED
            return Judgement(Verdict.PENDING, f"has not run for {SETTLED_S:g} s without a restart", container)
        case _:
            return Judgement(Verdict.PENDING, f"is not healthy yet: {_probe(container)}", container)


def _ended(container: Container, is_exposed: bool) -> Judgement:
    memory = " (it needed more memory than the machine has)" if container.is_out_of_memory else ""
    ended = f"ended with exit code {container.exit_code}{memory}"
    if container.exit_code:
        return Judgement(Verdict.FAILED, ended, container)
    if is_exposed:
        return Judgement(Verdict.FAILED, f"{ended}, but it has a URL and must keep running", container)
    return _SETTLED


def _probe(container: Container) -> str:
    if container.last_probe is None:
        return "its health check has not answered"
    said = container.last_probe.output.splitlines()
    code = f"its health check ended with exit code {container.last_probe.exit_code}"
    return f"{code}: {said[-1][:300]}" if said else code


def _crash_loops(
    expected: Mapping[str, int], containers: Sequence[Container], found: Mapping[str, Judgement]
) -> dict[str, Judgement]:
    """The services that keep crashing although every other one has settled, long enough ago to be no excuse."""
    looping = {c.service for c in containers if c.service in expected and _is_looping(c, found)}
    others = [c for c in containers if c.service in expected and c.service not in looping]
    if any(found[name].verdict is Verdict.PENDING for name in expected if name not in looping):
        return {}
    others_up_at = max((c.started_at for c in others), default=float("-inf"))
    return {
        c.service: Judgement(Verdict.FAILED, f"crashed {c.restarts} times, at last with exit code {c.exit_code}", c)
        for c in containers
        if c.service in looping and c.finished_at >= others_up_at + PATIENCE_S
    }


def _is_looping(container: Container, found: Mapping[str, Judgement]) -> bool:
    return container.restarts >= CRASHES and found[container.service].verdict is Verdict.PENDING


def memory_free_bytes() -> int:
    """What programs can still get on this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def disk_free_bytes(folder: Path) -> int:
    """What a program can still write into this folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize
