"""Where a preview's VM may be ordered, and what is left when a placement is sold out. Pure."""

from __future__ import annotations

from stagely.plan import Plan
from workflows.leased_vm import NO_CAPACITY, LeasedVm, VmLost
from workflows.messages import Placement
from workflows.orders import PlanResult


def placements_of(planned: PlanResult, plan: Plan) -> list[Placement]:
    """Where the preview may be ordered, its own wish first."""
    wish = Placement(plan.preview.region, plan.preview.size)
    return [wish, *(placement for placement in planned.placements if placement != wish)]


def left_after(placements: list[Placement], vm: LeasedVm) -> list[Placement]:
    """What is left to try when this VM's placement was sold out; otherwise all of them. Raises VmLost: nothing is."""
    used = Placement(vm.order.region, vm.order.size)
    report = vm.closed or vm.lost
    if report is None or report.code != NO_CAPACITY or used not in placements:
        return placements
    left = placements[placements.index(used) + 1 :]
    if not left:
        raise VmLost(report)
    return left
