"""Images in the registry: architectures merged at the fan-in, everything of an environment deleted at its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.db.queries import lives
from stagely.registry import Registry
from workflows.messages import BuiltImage, EnvironmentRef, MergeOrder


@dataclass(frozen=True, slots=True)
class ImageActivities:
    engine: AsyncEngine
    registry: Registry

    @activity.defn
    async def merge(self, order: MergeOrder) -> BuiltImage:
        """One manifest list over the digests of all architectures. The same digests again give the same list."""
        repository = order.repository.split("/", 1)[1]  # Without the registry's host:port.
        digest = await self.registry.merge(repository, order.digests)
        return BuiltImage(order.service, order.target, f"{order.repository}@{digest}")

    @activity.defn
    async def delete_images(self, ref: EnvironmentRef) -> None:
        """Delete every manifest and tag under the environment's name; the projects' shared build cache stays."""
        found = await lives.artifacts(self.engine, ref.environment_id)
        by_repository: dict[str, set[str]] = {}
        for artifact in found:
            repository, _, digest = artifact.partition("@")
            by_repository.setdefault(repository, set()).add(digest)
        async with asyncio.TaskGroup() as group:
            for repository, digests in by_repository.items():
                group.create_task(self._empty(repository, digests))

    async def _empty(self, repository: str, digests: set[str]) -> None:
        for tag in await self.registry.tags(repository):
            if digest := await self.registry.digest_of(repository, tag):
                digests.add(digest)
        for digest in sorted(digests):
            await self.registry.delete(repository, digest)
