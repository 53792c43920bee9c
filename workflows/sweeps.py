"""One sweep of the reaper: how it starts, what its parts look for and find, what it reports.

The rules of messages.py hold: frozen dataclasses, no secrets, fields only ever added, with defaults.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Leftover(enum.StrEnum):
    """What a sweep may find out of order.

    `orphan`: in the cloud, but not in the ledger, or gone there. `unleased`: its lease does not run. `expired`: past
    its dead-man deadline. `vanished`: running in the ledger, but not in the cloud. `silent`: its agent says nothing.
    `closed`: a living environment whose pull request is closed. `unfollowed`: one whose workflow does not run.
    """

    ORPHAN = "orphan"
    UNLEASED = "unleased"
    EXPIRED = "expired"
    VANISHED = "vanished"
    SILENT = "silent"
    CLOSED = "closed"
    UNFOLLOWED = "unfollowed"
    ROUTE = "route"
    SLOT = "slot"
    WEBHOOK = "webhook"
    AGENT_EVENT = "agent_event"


@dataclass(frozen=True, slots=True)
class SweepInput:
    """Start of a ReaperWorkflow, that is, of one sweep.

    What is younger than `min_age_s` is not looked at; what is destroyed was seen by two sweeps in a row, `apart_s`
    apart at least. `ceiling` or this share of all living VMs, whichever is more, is acted upon in one sweep.
    """

    min_age_s: float = 900.0  # Longer than any create with its retries, and than any cloud's list lags.
    apart_s: float = 120.0  # Two sweeps that a person triggers in a row are one look.
    expiry_grace_s: float = 600.0  # The lease itself acts at its deadline; the cloud may take minutes.
    silence_s: float = 900.0
    undelivered_s: float = 300.0
    ceiling: int = 5
    ceiling_share: float = 0.1
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SweepStart:
    sweep_id: str
    order: SweepInput


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep under way. `providers`: every cloud account that may hold VMs of ours."""

    sweep_id: str
    order: SweepInput
    ceiling: int
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountSweep:
    sweep: Sweep
    provider: str


@dataclass(frozen=True, slots=True)
class DoomedVm:
    """A VM that may be destroyed now. `owner_workflow_id` is "" when the ledger does not know it."""

    vm_id: str
    kind: Leftover
    provider: str
    owner_workflow_id: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one part of a sweep found, counted by Leftover: all of it, what may be acted upon, what it did itself.

    `doomed`: the VMs among what may be acted upon, as many of each kind as the ceiling allows. `notes`: what could
    not be judged, and why.
    """

    seen: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    acted: dict[str, int] = field(default_factory=dict)
    doomed: tuple[DoomedVm, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Result of a ReaperWorkflow. `due` minus `acted` was left for the next sweep."""

    sweep_id: str
    ceiling: int
    is_dry_run: bool = False
    seen: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    acted: dict[str, int] = field(default_factory=dict)
    destroyed: tuple[DoomedVm, ...] = ()
    notes: tuple[str, ...] = ()
