"""A sweep's beginning and end, and the build slots that nobody gave back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client

from activities import running, sightings
from activities.heartbeats import heartbeating
from stagely.db.queries import sweeps
from stagely.db.queries.sweeps import SweptSlot
from workflows.messages import pipeline_workflow_id
from workflows.sweeps import Findings, Leftover, Sweep, SweepReport, SweepStart

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SweepActivities:
    engine: AsyncEngine
    client: Client

    @activity.defn
    async def begin_sweep(self, start: SweepStart) -> Sweep:
        """Which clouds to look into, and how much one sweep may do."""
        overview = await sweeps.overview(self.engine)
        share = int(overview.living_vms * start.order.ceiling_share)
        return Sweep(start.sweep_id, start.order, max(start.order.ceiling, share), overview.providers)

    @activity.defn
    async def sweep_slots(self, sweep: Sweep) -> Findings:
        """Free build slots whose job, run or environment has ended, whose VMs are gone, or whose pipeline is."""
        async with heartbeating():
            slots = await sweeps.slots(self.engine, sweep.order.min_age_s)
            stray = [slot.build_id for slot in slots if slot.is_dead] + await self._abandoned(slots)
            due = await sightings.due(self.engine, sweep, Leftover.SLOT, stray)
            freed = 0 if sweep.order.is_dry_run else await sweeps.free_slots(self.engine, due)
        kind = str(Leftover.SLOT)
        return Findings({kind: len(stray)}, {kind: len(due)}, {kind: freed})

    @activity.defn
    async def conclude_sweep(self, report: SweepReport) -> None:
        """Say what the sweep found, in the log and as metrics. Again: said twice."""
        _measure(report)
        for vm in report.destroyed:
            log.error("leaked VM destroyed", vm_id=vm.vm_id, kind=vm.kind, provider=vm.provider, error_code="vm_leaked")
        for note in report.notes:
            log.warning("part of the sweep left undone", reason=note)
        for kind, due in report.due.items():
            acted = report.acted.get(kind, 0)
            if due > acted and not report.is_dry_run:
                log.error("sweep left some over", kind=kind, due=due, acted=acted, ceiling=report.ceiling)
        log.info("sweep done", seen=_some(report.seen), acted=_some(report.acted), is_dry_run=report.is_dry_run)

    async def _abandoned(self, slots: Sequence[SweptSlot]) -> list[str]:
        living = [slot for slot in slots if not slot.is_dead]
        ended = await running.not_running(self.client, {pipeline_workflow_id(slot.run_id) for slot in living})
        return [slot.build_id for slot in living if pipeline_workflow_id(slot.run_id) in ended]


def _measure(report: SweepReport) -> None:
    """`stagely_orphan_vms`: VMs without an owner that this sweep leaves behind; of the worker that swept last."""
    meter = activity.metric_meter()
    orphans = sum(report.seen.get(kind, 0) - report.acted.get(kind, 0) for kind in (Leftover.ORPHAN, Leftover.UNLEASED))
    meter.create_gauge("stagely_orphan_vms", "VMs without a living lease or ledger row").set(orphans)
    seen = meter.create_counter("stagely_leftovers_seen", "What sweeps found out of order, by kind")
    acted = meter.create_counter("stagely_leftovers_removed", "What sweeps put in order, by kind")
    for kind in Leftover:
        seen.add(report.seen.get(kind, 0), {"kind": kind})
        acted.add(report.acted.get(kind, 0), {"kind": kind})


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if count}
