"""Images in the registry: architectures merged at the fan-in."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from stagely.registry import Registry
from workflows.messages import BuiltImage
from workflows.orders import MergeOrder


@dataclass(frozen=True, slots=True)
class ImageActivities:
    registry: Registry

    @activity.defn
    async def merge(self, order: MergeOrder) -> BuiltImage:
        """One manifest list over the digests of all architectures. The same digests again give the same list."""
        repository = order.repository.split("/", 1)[1]  # Without the registry's host:port.
        digest = await self.registry.merge(repository, order.digests)
        return BuiltImage(order.service, order.target, f"{order.repository}@{digest}")
