"""The environment's preview VM, across pushes and runs."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

from workflows.leased_vm import LeasedVm
from workflows.lifetime import Lifetime
from workflows.messages import AgentEvent, Carried, LeaseEnded, Placement, VmLeaseInput

Spec = tuple[str, str, str, str]


@dataclass(slots=True)
class Preview:
    """`spec`: what was asked for when the VM was ordered (provider, region, size, architecture); another spec means
    another VM. `placement`: where it was ordered in the end.

    `holds_data`: it was ready once, so people's data may be on it. `serves`: a version is up and routed now.
    """

    vm: LeasedVm | None = None
    spec: Spec = ("", "", "", "")
    holds_data: bool = False
    serves: bool = False

    @classmethod
    def carried(cls, carried: Carried) -> Preview:
        """The preview as an earlier run left it; call `adopt` before anything else."""
        if carried.vm is None:
            return cls()
        return cls(LeasedVm(carried.vm), spec_of(carried.vm), carried.holds_data, carried.serves)

    async def adopt(self) -> None:
        if self.vm is not None:
            await self.vm.adopt()

    @property
    def vm_id(self) -> str:
        return self.vm.order.vm_id if self.vm else ""

    @property
    def is_lost(self) -> bool:
        return self.vm is not None and self.vm.is_gone

    def note(self, event: AgentEvent) -> None:
        if event.vm_id == self.vm_id and self.vm is not None:
            self.vm.note(event)

    def note_ended(self, ended: LeaseEnded) -> None:
        if ended.vm_id == self.vm_id and self.vm is not None:
            self.vm.note_ended(ended)

    async def renew(self, lifetime: Lifetime) -> None:
        """Keep the VM's dead-man deadline beyond its preview's end; nothing is sent while it is far enough."""
        if self.vm is None:
            lifetime.vm_expires_at = 0.0
        elif lifetime.needs_renewal(workflow.time()):
            await self.vm.renew(lifetime.renew(workflow.time()))

    async def drop(self) -> None:
        """Have the VM destroyed, wait until it is proven gone, and forget it. None: nothing to do."""
        if self.vm is not None:
            await self.vm.release()
            await self.vm.wait_closed()
        self.vm, self.holds_data, self.serves = None, False, False


def spec_of(order: VmLeaseInput) -> Spec:
    """What a VM was asked for as."""
    wish = order.wish or Placement(order.region, order.size)
    return (order.provider, wish.region, wish.size, order.arch)
