"""What the CLI reads of the api's answers (contract: api/schemas.py). Fields it does not know are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProjectView:
    id: str
    slug: str
    repo_url: str
    repo_full_name: str


@dataclass(frozen=True, slots=True)
class ServiceView:
    name: str
    status: str
    health: str = ""
    exit_code: int | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class FailureView:
    """Why a run failed: `subject` is the build target or service, `tail` its last lines."""

    step: str
    message: str
    subject: str = ""
    exit_code: int | None = None
    tail: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True)
class StepView:
    """One step of one run; `started_at` in Unix seconds, `seconds` None while it runs."""

    run_id: str
    name: str
    subject: str
    state: str
    started_at: float
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BuildJobView:
    """`position`: its place among the builds that wait for a slot, 1 is next; None: it does not wait."""

    name: str
    arch: str
    state: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    id: str
    number: int
    sha: str
    state: str
    builds: tuple[BuildJobView, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """One pull request's environment as it is now; `urls` has the main service first.

    `expires_at`: end of the preview's time in Unix seconds; None: it is pinned, or nothing counts yet.
    """

    id: str
    project_id: str
    project: str
    repo: str
    pr: int
    title: str
    state: str
    message: str
    commit: str
    since: float
    created_at: float
    urls: Mapping[str, str]
    services: tuple[ServiceView, ...] = ()
    failure: FailureView | None = None
    run: RunView | None = None
    steps: tuple[StepView, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    comment_url: str = ""
    expires_at: float | None = None
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class ActionView:
    """What became of an action: `outcome` is done, unanswered or started. `update_id`: the key it was asked under."""

    update_id: str
    outcome: str
    expires_at: float | None = None
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class LogLineView:
    id: int
    run_id: str
    stream: str
    at: float
    data: str


@dataclass(frozen=True, slots=True)
class VmView:
    """One row of the ledger; `state` gone means proven by the cloud's list."""

    id: str
    role: str
    job: str
    state: str
    created_at: float
    address: str = ""
