"""What a run shows of itself in the Web UI: search attributes to find it by, and current details in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributePair, SearchAttributeUpdate, TypedSearchAttributes

from stagely.states import EnvironmentState
from workflows import attributes
from workflows.issuance import CertificateState
from workflows.messages import PipelineInput, PullRequestFacts, VmLeaseInput
from workflows.orders import Record


def lease_attributes(order: VmLeaseInput) -> TypedSearchAttributes:
    """Of a lease, given at its start: they cost no event of their own."""
    expires_at = datetime.fromtimestamp(workflow.time() + order.expires_in_s, UTC)
    return TypedSearchAttributes(
        [
            SearchAttributePair(attributes.PROJECT, order.project_id),
            SearchAttributePair(attributes.PROVIDER, order.provider),
            SearchAttributePair(attributes.ROLE, order.role),
            SearchAttributePair(attributes.EXPIRES_AT, expires_at),
        ]
    )


def pipeline_attributes(order: PipelineInput) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(attributes.PROJECT, order.project_id),
            SearchAttributePair(attributes.PROVIDER, order.provider),
        ]
    )


def mark(record: Record, facts: PullRequestFacts | None = None) -> None:
    """What the record changes of an environment's state and end. One event, no workflow task; nothing changed: none."""
    updates: list[SearchAttributeUpdate[Any]] = []  # Any: keywords, numbers and times.
    if record.state is not None:
        updates.append(attributes.STATE.value_set(record.state))
        updates += _whose(record.state, facts)
    if record.lifetime is not None:
        end = record.lifetime.expires_at
        at = None if end is None else datetime.fromtimestamp(end, UTC)
        updates.append(attributes.EXPIRES_AT.value_unset() if at is None else attributes.EXPIRES_AT.value_set(at))
    if updates:
        workflow.upsert_search_attributes(updates)


def _whose(
    state: EnvironmentState, facts: PullRequestFacts | None
) -> list[SearchAttributeUpdate[Any]]:  # Any: as above.
    """Project, repository and pull request, when a push begins. Not at the start: no worker may have made them yet."""
    if facts is None or state not in (EnvironmentState.BUILDING, EnvironmentState.AWAITING_APPROVAL):
        return []
    return [
        attributes.PROJECT.value_set(facts.project_id),
        attributes.REPO.value_set(facts.repo_full_name),
        attributes.PR.value_set(facts.pr),
    ]


def mark_certificate(state: str, found: CertificateState) -> None:
    """`state`: valid, due (of renewal, or there is none) or proving; the end is that of the certificate in use."""
    updates: list[SearchAttributeUpdate[Any]] = [attributes.STATE.value_set(state)]  # Any: as above.
    if found.expires_at:
        updates.append(attributes.EXPIRES_AT.value_set(datetime.fromtimestamp(found.expires_at, UTC)))
    workflow.upsert_search_attributes(updates)


def describe_environment(facts: PullRequestFacts | None, record: Record, vm_id: str) -> None:
    """What the environment is at now, since when, on which VM, and what went wrong last."""
    since = workflow.now().strftime("%Y-%m-%d %H:%M:%S UTC")
    rows = [f"**{record.state or 'ready'}** since {since}: {record.message}"]
    if facts is not None:
        rows.append(f"{facts.repo_full_name}, commit `{facts.sha}`")
    rows.append(f"VM `{vm_id}`" if vm_id else "no VM")
    if record.failure is not None:
        rows.append(f"Last error, in {record.failure.step}: {record.failure.message}")
    workflow.set_current_details("\n\n".join(rows))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
