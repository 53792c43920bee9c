"""Certificates of preview VMs: the first soon after the agent's first contact, then anew several times a day.

No activity but a loop beside the core's, as comments are: a VM that is pinned for a month adds nothing to a workflow's
history. The row of a VM says when to look after it next; a certificate is a command like any other, so it waits for an
agent that is away, and is sent until it is answered (docs/adr/0011-vm-identity.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.records import nudge_agent
from stagely.db.queries import certificates, ledger
from stagely.db.queries.certificates import KIND, Machine
from stagely.db.queries.ledger import NewCommand
from stagely.ids import mint
from stagely.vm_ca import CA_ENDS_SOON, VmCa, VmCaInvalid
from workflows.messages import CommandOrder

RENEW_AFTER = timedelta(hours=8)  # A third of a certificate's life: two more may fail before one is missed.
LOOK_AGAIN = timedelta(seconds=60)  # Whether the agent has taken it. It answers at once, or when it is back.
POLL_S = 0.5  # One indexed query. A deployment takes seconds longer, so no visitor waits for a certificate.
MOST_DOUBLINGS = 6  # An agent that refuses every certificate is asked once an hour, not each minute for ever.
AT_ONCE = 50
WAIT_FOR_OPERATOR_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CertificateIssuer:
    """Any number of issuers may run: a VM is looked after by one at a time."""

    engine: AsyncEngine
    redis: Redis
    ca: VmCa
    renew_after: timedelta = RENEW_AFTER
    look_again: timedelta = LOOK_AGAIN
    poll_s: float = POLL_S

    async def run(self) -> None:
        """Look after certificates until cancelled."""
        while True:
            wait_s = await self._pass()
            await asyncio.sleep(wait_s)

    async def look_after_due(self) -> list[str]:
        """Look after the certificates that are due, at most AT_ONCE. The VMs that were given a new one.

        Raises VmCaInvalid; then nobody was given any.
        """
        async with self.engine.begin() as db:
            machines = await certificates.due(db, AT_ONCE)
            given = [machine.vm_id for machine in machines if await self._look_after(db, machine)]
        for vm_id in given:
            await nudge_agent(self.redis, vm_id)
        return given

    async def _pass(self) -> float:
        """Seconds until the next one."""
        try:
            given = await self.look_after_due()
        except (SQLAlchemyError, OSError) as error:
            log.warning("certificates wait for the database", error_code="database_away", reason=str(error)[:200])
        except VmCaInvalid as error:
            log.error("certificates wait for their CA", error_code="vm_ca_invalid", reason=str(error))
            return WAIT_FOR_OPERATOR_S
        else:
            return 0.0 if len(given) == AT_ONCE else self.poll_s
        return self.poll_s

    async def _look_after(self, db: AsyncConnection, machine: Machine) -> bool:
        """Whether it was given a new certificate."""
        renew_at = machine.issued_at + self.renew_after if machine.issued_at else machine.now
        if machine.now < renew_at and machine.outcome != "failed":
            is_taken = machine.outcome == "succeeded"
            await certificates.look_again(db, machine.vm_id, renew_at if is_taken else machine.now + self.look_again)
            return False
        made = self.ca.certify(machine.public_key, machine.environment_id, machine.now)
        order = CommandOrder(mint("cmd"), machine.vm_id, KIND, machine.environment_id, certificate=made.certificate)
        await ledger.put_command(
            db, NewCommand(order.command_id, machine.vm_id, machine.environment_id, "", KIND, asdict(order))
        )
        wait = self.look_again * 2 ** min(machine.failures, MOST_DOUBLINGS)
        await certificates.look_again(db, machine.vm_id, machine.now + wait)
        self._note(machine, made.ends_at.isoformat())
        return True

    def _note(self, machine: Machine, ends_at: str) -> None:
        event = log.bind(vm_id=machine.vm_id, environment_id=machine.environment_id, ends_at=ends_at)
        if machine.outcome == "failed":
            event.warning("certificate issued again", reason="the agent could not serve with the one before")
        else:
            event.info("certificate issued")
        if self.ca.ends_at() - machine.now < CA_ENDS_SOON:
            log.warning("vm ca ends soon", ends_at=self.ca.ends_at().isoformat(), remedy="make the next one")
