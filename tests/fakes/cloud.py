"""A cloud in memory that keeps state and a journal and can be told to misbehave, and a provider for it.

The cloud is shaped like Hetzner's: names are unique in a project, so the VM's id is the name and a conflict on create
means that an earlier create got through.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from providers.base import PowerState, Vm, VmOrder
from providers.errors import CredentialsRejected, NoCapacity, ProviderUnavailable, QuotaExceeded


class CloudError(Exception):
    """What the cloud answers: a status and a code of its own, as a real one does."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class ReplyLost(Exception):
    """The connection died after the request was sent; whether it had an effect is unknown to the caller."""


@dataclass(frozen=True, slots=True)
class Server:
    """`hidden_lists`: how many lists it is still missing from; `dying_looks`: how often it is still seen dying."""

    name: str
    native_id: str
    labels: Mapping[str, str]
    user_data: str
    region: str
    address: str
    created_at: float
    power: PowerState = PowerState.RUNNING
    hidden_lists: int = 0
    dying_looks: int | None = None


@dataclass(slots=True)
class FakeCloud:
    """One account. `journal` holds every call that reached the cloud as "verb name"."""

    limit: int = 100
    journal: list[str] = field(default_factory=list)
    _servers: dict[str, Server] = field(default_factory=dict)
    _sold_out: set[str] = field(default_factory=set)
    _faults: dict[str, list[str]] = field(default_factory=dict)
    _list_lag: int = 0
    _delete_lag: int = 0
    _revoked: bool = False
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # --- how a test tells it to misbehave

    def sell_out(self, region: str) -> None:
        """No more VMs in this region."""
        self._sold_out.add(region)

    def restock(self, region: str) -> None:
        self._sold_out.discard(region)

    def lose_reply(self, verb: str, *, after: bool = True) -> None:
        """The next `verb` (create, delete, list) gets no reply, after its effect or before it."""
        self._faults.setdefault(verb, []).append("lost after" if after else "lost before")

    def fail_once(self, verb: str, *, after: bool = True) -> None:
        """The next `verb` answers 500, after its effect or before it."""
        self._faults.setdefault(verb, []).append("500 after" if after else "500 before")

    def lag_list(self, lists: int) -> None:
        """Servers made from now on are missing from the next `lists` lists."""
        self._list_lag = lists

    def lag_delete(self, looks: int) -> None:
        """Servers deleted from now on are still seen `looks` times."""
        self._delete_lag = looks

    def revoke_key(self) -> None:
        self._revoked = True

    def power_off(self, name: str) -> None:
        """What the agent does when it hears nothing: the VM is off and still there."""
        self._servers[name] = replace(self._servers[name], power=PowerState.OFF)

    def names(self) -> list[str]:
        """The servers that really exist and are not dying, whatever the lists say."""
        return sorted(name for name, server in self._servers.items() if server.dying_looks is None)

    def server(self, name: str) -> Server:
        return self._servers[name]

    # --- the cloud's own API

    def create_server(self, name: str, labels: Mapping[str, str], user_data: str, region: str) -> Server:
        fault = self._arrive("create", name)
        if name in self._servers:
            raise CloudError(409, "uniqueness_error")
        if region in self._sold_out:
            raise CloudError(412, "resource_unavailable")
        if len(self._servers) >= self.limit:
            raise CloudError(403, "resource_limit_exceeded")
        number = next(self._ids)
        self._servers[name] = Server(
            name=name,
            native_id=f"i-{number:06d}",
            labels=dict(labels),
            user_data=user_data,
            region=region,
            address=f"10.0.{number // 256}.{number % 256}",
            created_at=1_700_000_000.0 + number,
            hidden_lists=self._list_lag,
        )
        _leave(fault)
        return self._servers[name]

    def server_by_name(self, name: str) -> Server | None:
        self._arrive("get", name)
        return self._look(name)

    def delete_server(self, name: str) -> None:
        fault = self._arrive("delete", name)
        server = self._servers.get(name)
        if server is None:
            raise CloudError(404, "not_found")
        if self._delete_lag:
            self._servers[name] = replace(server, power=PowerState.OFF, dying_looks=self._delete_lag)
        else:
            del self._servers[name]
        _leave(fault)

    def list_servers(self, label: str, value: str) -> list[Server]:
        _leave(self._arrive("list", f"{label}={value}"))
        shown = []
        for name in sorted(self._servers):
            hidden = self._servers[name].hidden_lists
            if hidden:
                self._servers[name] = replace(self._servers[name], hidden_lists=hidden - 1)
            elif (server := self._look(name)) is not None and server.labels.get(label) == value:
                shown.append(server)
        return shown

    def _look(self, name: str) -> Server | None:
        server = self._servers.get(name)
        if server is None or server.dying_looks is None:
            return server
        if server.dying_looks == 0:
            del self._servers[name]
            return None
        self._servers[name] = replace(server, dying_looks=server.dying_looks - 1)
        return server

    def _arrive(self, verb: str, name: str) -> str:
        """The fault that is due after this call's effect, or "". Raises the one that is due before it."""
        fault = self._faults[verb].pop(0) if self._faults.get(verb) else ""
        if fault == "lost before":
            raise ReplyLost
        self.journal.append(f"{verb} {name}")
        if self._revoked:
            raise CloudError(401, "unauthorized")
        if fault == "500 before":
            raise CloudError(500, "server_error")
        return fault


def _leave(fault: str) -> None:
    if fault == "lost after":
        raise ReplyLost
    if fault == "500 after":
        raise CloudError(500, "server_error")


class FakeCloudProvider:
    """providers.base.Provider on a FakeCloud."""

    name: str = "fake"

    def __init__(self, cloud: FakeCloud, installation: str) -> None:
        self._cloud = cloud
        self._installation = installation

    async def create(self, order: VmOrder) -> Vm:
        labels = {
            "installation": order.installation,
            "vm": order.vm_id,
            "environment": order.environment_id,
            "role": order.role.value,
            "expires": str(order.expires_at),
        }
        name = _name(order.vm_id)
        try:
            return _vm(self._cloud.create_server(name, labels, order.user_data, order.region))
        except (CloudError, ReplyLost) as error:
            if not _is(error, 409):
                raise _translated(error, f"create {order.vm_id}") from error
        found = await self.find(order.vm_id)
        if found is None:
            raise ProviderUnavailable(f"fake: {name} is taken and not there; try again")
        return found

    async def find(self, vm_id: str) -> Vm | None:
        try:
            server = self._cloud.server_by_name(_name(vm_id))
        except (CloudError, ReplyLost) as error:
            raise _translated(error, f"find {vm_id}") from error
        if server is None or server.labels.get("installation") != self._installation:
            return None
        return _vm(server)

    async def destroy(self, vm_id: str) -> None:
        if await self.find(vm_id) is None:
            return
        try:
            self._cloud.delete_server(_name(vm_id))
        except (CloudError, ReplyLost) as error:
            if not _is(error, 404):
                raise _translated(error, f"destroy {vm_id}") from error

    async def list_owned(self) -> Sequence[Vm]:
        try:
            return [_vm(server) for server in self._cloud.list_servers("installation", self._installation)]
        except (CloudError, ReplyLost) as error:
            raise _translated(error, "list") from error

    async def aclose(self) -> None:
        """Nothing is open."""


_ERRORS = {
    "unauthorized": CredentialsRejected,
    "resource_limit_exceeded": QuotaExceeded,
    "resource_unavailable": NoCapacity,
}


def _translated(error: CloudError | ReplyLost, operation: str) -> Exception:
    code = error.code if isinstance(error, CloudError) else "no reply"
    return _ERRORS.get(code, ProviderUnavailable)(f"fake: {operation}: {code}")


def _is(error: CloudError | ReplyLost, status: int) -> bool:
    return isinstance(error, CloudError) and error.status == status


def _name(vm_id: str) -> str:
    return f"stg-{vm_id}"


def _vm(server: Server) -> Vm:
    return Vm(
        vm_id=server.labels["vm"],
        native_id=server.native_id,
        power=server.power,
        address=server.address,
        created_at=server.created_at,
        environment_id=server.labels["environment"],
        role=server.labels["role"],
    )
