"""Routes of an environment: a page while it is not there, the VM while it is, nothing when it is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import INGRESS_PORT
from edge.routes import Route, RouteStatus
from providers.errors import ProviderUnavailable
from stagely import routing
from stagely.db.queries import certificates, ledger, lives
from stagely.db.queries.lives import LifeRow
from stagely.errors import Conflict, Unavailable
from stagely.plan import host_label
from stagely.states import VmState
from stagely.vm_ca import SETTING
from workflows.orders import RouteOrder

PHASE_LENGTH = 200  # One sentence on the page; the record's limit is 4 KB.
WITHDRAWN = "withdrawn"
ASK_AGAIN_S = 0.5  # A certificate is taken half a second after the agent's first contact, long before services stand.
LOCAL = "local"  # Its VMs are containers on this machine: no foreign one gets their addresses.


@dataclass(frozen=True, slots=True)
class Routes:
    """What an activity does to routes before it writes its rows. `log_url` is a template with `{environment}`.

    `by_tls`: VMs have certificates, and nobody's request goes to one in clear.
    """

    engine: AsyncEngine
    redis: Redis
    log_url: str
    by_tls: bool = False

    async def apply(self, order: RouteOrder) -> None:
        """Announce every label of the environment, or withdraw all it ever had. Again: the same routes.

        The address is the ledger's, that is, the cloud's own word.

        Raises:
            Conflict: the VM is being destroyed or gone; a route must never lead to somebody else's machine. Or it is
                in a cloud and there is no CA that it could prove itself by, or its agent could not take a certificate.
            ProviderUnavailable: its address is not recorded yet (a killed worker's create is being tried again).
            Unavailable: its agent has not taken its first certificate yet.
        """
        life = await lives.life(self.engine, order.environment_id)
        if order.status == WITHDRAWN:
            await routing.withdraw(self.redis, [life.hash, *life.labels])
            return
        address = await self._address(order.vm_id) if order.vm_id else ""
        routes = {
            label: self._route(order, life, address, INGRESS_PORT + index) for index, label in enumerate(_labels(life))
        }
        await routing.announce(self.redis, routes)
        await routing.withdraw(self.redis, [label for label in life.labels if label not in routes])

    async def _address(self, vm_id: str) -> str:
        row = await ledger.find_row(self.engine, vm_id)
        if row is None or row.state in (VmState.DESTROYING, VmState.GONE):
            raise Conflict(f"VM {vm_id} is {row.state if row else 'unknown'}: no route is announced to it")
        if not row.address:
            raise ProviderUnavailable(f"VM {vm_id} has no recorded address yet")
        if not self.by_tls and row.provider != LOCAL:
            raise Conflict(
                f"VM {vm_id} of {row.provider} is not reached in clear: set {SETTING} and STAGELY_EDGE_VM_CA, "
                "docs/edge-routing.md has the steps"
            )
        if self.by_tls:
            await self._proves_itself(vm_id)
        return row.address

    async def _proves_itself(self, vm_id: str) -> None:
        outcome = await certificates.outcome(self.engine, vm_id)
        if outcome == "failed":
            raise Conflict(
                f"the agent of VM {vm_id} could not take its certificate, so nobody is led to it. It gets another one "
                "within a minute: retry then; should that fail too, redeploy on a new VM"
            )
        if outcome != "succeeded":
            raise Unavailable(f"the agent of VM {vm_id} has not taken its certificate yet", retry_after_s=ASK_AGAIN_S)

    def _route(self, order: RouteOrder, life: LifeRow, address: str, port: int) -> Route:
        return Route(
            status=RouteStatus(order.status),
            project=life.project.slug,
            team=life.project.team_slug,
            pr=life.pr,
            environment=life.id,
            ip=address,
            port=port if address else 0,
            tls=self.by_tls and bool(address),
            phase=" ".join(order.phase.split())[:PHASE_LENGTH],
            since=time.time(),
            log_url=self.log_url.format(environment=life.id),
        )


def _labels(life: LifeRow) -> list[str]:
    """The labels of the exposed services in their order; the hash alone before the first plan."""
    return [host_label(e["label"], life.hash) for e in life.exposes] or [life.hash]
