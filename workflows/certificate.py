"""CertificateWorkflow: one look after the wildcard certificate, started by a Schedule.

Most looks end at once. When a third of its life is left, the certificate is ordered anew, proven by TXT records
(ACME DNS-01) and installed. A look that fails is a failed run, and the next one begins again: once an hour is well
below what authorities allow for failed checks, and a certificate is never ordered while another look is at it.
"""

from __future__ import annotations

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.certificates import CertificateActivities

from workflows.failures import reason
from workflows.fanout import protected
from workflows.issuance import CertificateInput, CertificateState
from workflows.options import CHALLENGES, FINISH_ORDER, INSPECT_CERTIFICATE, PLACE_ORDER, WITHDRAW_CHALLENGES
from workflows.status import mark_certificate

perform = workflow.execute_activity_method


@workflow.defn
class CertificateWorkflow:
    """Renews the certificate if it is time, and leaves no TXT record behind in any outcome.

    What cannot be removed now is noted in the folder; the next look removes it first.
    """

    @workflow.run
    async def run(self, order: CertificateInput) -> CertificateState:
        found = await perform(CertificateActivities.inspect_certificate, order, **INSPECT_CERTIFICATE)
        mark_certificate("due" if found.is_due else "valid", found)
        if not found.is_due:
            if found.has_leftovers:
                await perform(CertificateActivities.withdraw_challenges, order, **WITHDRAW_CHALLENGES)
            return replace(found, has_leftovers=False)
        if found.has_leftovers:
            await _withdrawn(order)  # A value that can never be removed must not end the certificate.
        placed = await perform(CertificateActivities.place_order, order, summary=order.domain, **PLACE_ORDER)
        mark_certificate("proving", found)
        try:
            if placed.records:
                await perform(CertificateActivities.publish_challenges, placed, **CHALLENGES)
            installed = await perform(CertificateActivities.finish_order, placed, **FINISH_ORDER)
        finally:
            has_leftovers = not await protected(_withdrawn(order))
        mark_certificate("valid", installed)
        return replace(installed, has_leftovers=has_leftovers)


async def _withdrawn(order: CertificateInput) -> bool:
    """A failure here must not hide why the order failed, nor undo one that did not: the next look tries again."""
    try:
        await perform(CertificateActivities.withdraw_challenges, order, **WITHDRAW_CHALLENGES)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("TXT records are left in the DNS until the next look: %s", reason(error))
        return False
    return True
