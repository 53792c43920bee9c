"""The outside world of the measured worker, in memory and without any waiting: a cloud, a forge, a registry."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from bench.lifecycle.place import REPO
from providers.base import PowerState, Vm, VmOrder
from stagely.github import PullRequest

TWO_BUILDS = """
services:
  web: {build: web, ports: ["80:80"]}
  api: {build: api}
  store: {image: redis:8}
"""


@dataclass(slots=True)
class Cloud:
    """Every VM is there at once and gone at once. `made` counts all that ever were."""

    name: str = "local"
    made: int = 0
    alive: dict[str, Vm] = field(default_factory=dict)

    async def create(self, order: VmOrder) -> Vm:
        if order.vm_id not in self.alive:
            self.made += 1
            address = f"10.{self.made >> 16 & 255}.{self.made >> 8 & 255}.{self.made & 255}"
            self.alive[order.vm_id] = Vm(
                order.vm_id, f"n-{order.vm_id}", PowerState.RUNNING, address, time.time(), order.environment_id
            )
        return self.alive[order.vm_id]

    async def find(self, vm_id: str) -> Vm | None:
        return self.alive.get(vm_id)

    async def destroy(self, vm_id: str) -> None:
        self.alive.pop(vm_id, None)

    async def list_owned(self) -> Sequence[Vm]:
        return list(self.alive.values())

    async def aclose(self) -> None:
        return


@dataclass(slots=True)
class Forge:
    """GitHub with one commit per pull request. All of them are open until all are closed."""

    is_closed: bool = False
    comments: dict[int, str] = field(default_factory=dict)
    statuses: int = 0

    def close_all(self) -> None:
        self.is_closed = True

    async def pull_request(self, repo: str, number: int) -> PullRequest:
        state = "closed" if self.is_closed else "open"
        sha = hashlib.sha1(str(number).encode()).hexdigest()
        return PullRequest(number, state, False, False, f"change {number}", sha, "topic", "0" * 40, "main", REPO, "ann")

    async def open_pull_requests(self, repo: str) -> frozenset[int]:
        """Only the reaper asks, and it is not part of this."""
        return frozenset()

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]:
        return {path: TWO_BUILDS if path == "docker-compose.yml" else None for path in paths}

    async def create_comment(self, repo: str, pr: int, text: str) -> int:
        self.comments[pr] = text
        return pr

    async def update_comment(self, repo: str, comment_id: int, text: str) -> None:
        self.comments[comment_id] = text

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None:
        return pr if pr in self.comments else None

    async def set_status(
        self, repo: str, sha: str, state: str, context: str, description: str, target_url: str
    ) -> None:
        self.statuses += 1


def empty_registry() -> httpx.AsyncClient:
    """A registry without any image."""
    return httpx.AsyncClient(
        base_url="http://registry", transport=httpx.MockTransport(lambda request: httpx.Response(404))
    )
