"""What every cloud promises. Each provider holds one account's credentials and no state of its own."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stagely.states import VmRole


class PowerState(enum.StrEnum):
    """Of a machine as its cloud reports it. `OFF` still costs money in most clouds."""

    PENDING = "pending"
    RUNNING = "running"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class VmOrder:
    """One machine to be. `vm_id` is idempotency key, name and label at once.

    `user_data` is cloud-init's, at most 12 KiB (EC2 takes 16 KB), and byte-identical on every retry.
    `expires_at` (Unix seconds) travels as a label for whoever cleans up after a lost ledger.
    """

    vm_id: str
    installation: str
    project_id: str
    environment_id: str
    role: VmRole
    user_data: str = field(repr=False)
    arch: str = "amd64"
    region: str = ""
    size: str = ""
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class Vm:
    """A machine as the cloud lists it. `address` is None until the cloud has given it one."""

    vm_id: str
    native_id: str
    power: PowerState
    address: str | None
    created_at: float
    environment_id: str = ""
    role: str = ""


class Provider(Protocol):
    """One cloud account. All methods raise only providers.errors; each call has its own deadline."""

    name: str

    async def create(self, order: VmOrder) -> Vm:
        """Start one VM for this order and return without waiting for its boot.

        The same order.vm_id always yields the same VM, so a retry never pays twice.

        Raises:
            QuotaExceeded, CredentialsRejected, VmRejected: retrying will not help, a person must act.
            NoCapacity: this size is sold out in this region now; another size or region may do.
            ProviderUnavailable: try again.
        """
        ...

    async def find(self, vm_id: str) -> Vm | None:
        """The VM of this id, or None when the cloud's list has none (anything not yet destroyed counts)."""
        ...

    async def destroy(self, vm_id: str) -> None:
        """Ask for the end of this VM and of all it holds. Nothing there is success; `find` proves that it is gone."""
        ...

    async def list_owned(self) -> Sequence[Vm]:
        """Every VM of this installation, whatever its power state. Never another installation's."""
        ...

    async def aclose(self) -> None:
        """Free connections; the provider is not used afterwards."""
        ...
