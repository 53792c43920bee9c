"""The installation's certificate: looked at, ordered, proven by TXT records, and put where the edge reads it.

Only a worker that has the folder and the DNS token serves these, on a queue of their own. No secret is in what they
take and give: keys stay in the folder, the token in its adapter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from temporalio import activity

from providers.authority import Authority
from providers.dns.base import DnsZone, Visibility
from providers.errors import AuthorityRefused, DnsRejected
from stagely.certificates import RENEWAL_SHARE, CertificateFolder, Validity, names_of
from stagely.txt import TxtRecord
from workflows.issuance import CertificateInput, CertificateOrder, CertificateState

VISIBLE_LIMIT_S = 600.0  # Route 53 says 60 s; ten times that, for zones whose secondaries poll.
LATE_SHARE = RENEWAL_SHARE / 2  # With half of the time for renewal gone, somebody should look.

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CertificateActivities:
    """`zone_of()` gives a zone that this class closes after each activity."""

    folder: CertificateFolder
    authority: Authority
    zone_of: Callable[[], DnsZone]
    nameservers: Visibility
    clock: Callable[[], float] = time.time

    @activity.defn
    async def inspect_certificate(self, order: CertificateInput) -> CertificateState:
        """What is there, and whether it is time for another. Says so in the log and as a metric."""
        found = self.folder.validity()
        state = self._state(found, order.domain)
        if found is None:
            log.warning("no certificate yet", domain=order.domain, path=str(self.folder.certificate))
        else:
            self._tell(found, order.domain)
        return state

    @activity.defn
    async def place_order(self, order: CertificateInput) -> CertificateOrder:
        """Order a certificate. The key is written first: a folder that takes no file costs no order.

        Again: the same order where the authority gives it back (Let's Encrypt does), else one more.
        """
        key = self.folder.next_key()
        placed = await self.authority.place(names_of(order.domain), key)
        log.info("certificate ordered", domain=order.domain, order=placed.url, records=len(placed.records))
        return CertificateOrder(order.domain, placed.url, placed.records)

    @activity.defn
    async def publish_challenges(self, order: CertificateOrder) -> None:
        """Put the order's TXT values into the DNS and return once the zone's own servers have them.

        Noted in the folder before: whatever happens then, `withdraw_challenges` finds them. Again: nothing changes.
        """
        known = self.folder.challenges()
        self.folder.note_challenges(dict.fromkeys((*known, *order.records)))
        zone = self.zone_of()
        try:
            for record in order.records:
                await zone.put_txt(record.name, record.value)
        finally:
            await zone.aclose()
        await self.nameservers.wait_for(order.records, VISIBLE_LIMIT_S)

    @activity.defn
    async def finish_order(self, order: CertificateOrder) -> CertificateState:
        """Have the authority check and sign, and install what it gives. Again, at any point: goes on from there."""
        names = names_of(order.domain)
        chain = await self.authority.finish(order.url, names, self.folder.next_key())
        try:
            installed = self.folder.install(chain)
        except ValueError as error:
            raise AuthorityRefused(f"{order.url} gave what cannot be used: {error}; order another") from error
        self._tell(installed, order.domain)
        return self._state(installed, order.domain)

    @activity.defn
    async def withdraw_challenges(self, order: CertificateInput) -> None:
        """Remove every TXT value of ours from the DNS, those of runs that were stopped too. Again: nothing changes.

        One that the provider rejects (the domain has moved to another zone) does not save the others; it stays noted,
        and is what this fails with.
        """
        records: tuple[TxtRecord, ...] = self.folder.challenges()
        if not records:
            return
        rejected: dict[TxtRecord, DnsRejected] = {}
        zone = self.zone_of()
        try:
            for record in records:
                try:
                    await zone.remove_txt(record.name, record.value)
                except DnsRejected as error:
                    rejected[record] = error
        finally:
            await zone.aclose()
        self.folder.note_challenges(rejected)
        for reason in rejected.values():
            raise reason
        log.info("challenges withdrawn", domain=order.domain, records=len(records))

    def _state(self, found: Validity | None, domain: str) -> CertificateState:
        has_leftovers = bool(self.folder.challenges())
        if found is None:
            return CertificateState(is_due=True, has_leftovers=has_leftovers)
        is_due = self.clock() >= found.renew_at or not found.names >= set(names_of(domain))
        return CertificateState(found.ends_at, found.renew_at, is_due, has_leftovers)

    def _tell(self, found: Validity, domain: str) -> None:
        left_s = found.ends_at - self.clock()
        gauge = activity.metric_meter().create_gauge_float(
            "stagely_certificate_expiry_timestamp_seconds", "When the certificate in the folder ends, Unix time"
        )
        gauge.set(found.ends_at, {"domain": domain})
        keys = {"domain": domain, "expires_at": datetime.fromtimestamp(found.ends_at, UTC).isoformat()}
        if left_s <= 0:
            log.error("certificate expired", **keys)
        elif left_s < (found.ends_at - found.begins_at) * LATE_SHARE:
            log.warning("certificate ends soon", **keys, reason="its renewals fail: look at the runs")
        else:
            log.info("certificate valid", **keys)
