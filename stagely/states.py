"""The words for states, the same in the database, the API, the UI and the CLI. Pure: workflows import it."""

from __future__ import annotations

import enum


class EnvironmentState(enum.StrEnum):
    """Where a pull request's environment is.

    `terminated`: the pull request closed or a person stopped it; `reaped`: the reaper ended it.
    """

    QUEUED = "queued"
    AWAITING_APPROVAL = "awaiting_approval"
    BUILDING = "building"
    DEPLOYING = "deploying"
    READY = "ready"
    FAILED = "failed"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    REAPED = "reaped"


GONE = frozenset({EnvironmentState.TERMINATED, EnvironmentState.REAPED})


class RunState(enum.StrEnum):
    """Of a workflow run (one push), a build job and a step."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class VmState(enum.StrEnum):
    """Of a ledger row. `gone` means proven by the cloud's own list, not by the answer to a delete."""

    CREATING = "creating"
    RUNNING = "running"
    DESTROYING = "destroying"
    GONE = "gone"


class VmRole(enum.StrEnum):
    BUILDER = "builder"
    PREVIEW = "preview"
