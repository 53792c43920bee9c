"""The end of an environment: its images forgotten, its end written down, in one activity."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.records import nudge, write
from stagely.db.queries import ledger, lives, timeline
from stagely.errors import RegistryRefused, RegistryUnavailable
from stagely.registry import Registry
from workflows.orders import Burial, Buried

REGISTRY_ATTEMPTS = 5  # With the retries' back-off about half a minute; what is left then costs disk, not money.

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BurialActivities:
    engine: AsyncEngine
    redis: Redis
    registry: Registry

    @activity.defn
    async def bury(self, burial: Burial) -> Buried:
        """Delete the environment's images and write its end, unless the ledger still knows a living VM of it.

        Nothing is written then, and the caller destroys first. Again: the same rows.

        Raises:
            RegistryUnavailable: on the first REGISTRY_ATTEMPTS attempts; later ones leave the images behind.
        """
        record = burial.record
        left = await ledger.living_rows(self.engine, record.environment_id)
        if left:
            return Buried(tuple(row.vm_id for row in left))
        await self._forget_images(record.environment_id)
        async with self.engine.begin() as db:
            await timeline.cancel_open_runs(db, record.environment_id)
            await write(db, record)
        await nudge(self.redis, record.environment_id)
        return Buried()

    async def _forget_images(self, environment_id: str) -> None:
        try:
            await self._delete_images(environment_id)
        except* (RegistryUnavailable, RegistryRefused) as errors:
            is_refused = errors.subgroup(RegistryRefused) is not None
            if not is_refused and activity.info().attempt < REGISTRY_ATTEMPTS:
                raise
            reason = str(errors.exceptions[0])[:200]
            log.warning("images were left in the registry", environment_id=environment_id, reason=reason)

    async def _delete_images(self, environment_id: str) -> None:
        """Delete every manifest and tag under the environment's name; the projects' shared build cache stays."""
        found = await lives.artifacts(self.engine, environment_id)
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
