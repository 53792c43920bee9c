"""What workflows give to activities and get back, except for the reaper's: see sweeps.py.

The rules of messages.py hold: frozen dataclasses, no secrets, fields only ever added, with defaults. The api sees none
of these; what it exchanges with workflows, and what a workflow takes, gives or carries, is in messages.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stagely.plan import Expose, Plan
from stagely.states import EnvironmentState, RunState
from workflows.messages import BuildJobRef, CommandOrder, FailureReport, Placement, PullRequestFacts, ServiceReport


@dataclass(frozen=True, slots=True)
class PullRequestRef:
    """Look at this pull request. `action` of the webhook decides only whether an environment that ended comes back.

    With `run_id` no push runs, and what follows is done in the same breath (one activity less): a new head is planned,
    unless it is `known_sha`; a closed pull request's routes are withdrawn and its environment called terminating.
    """

    project_id: str
    pr: int
    action: str = ""
    run_id: str = ""
    known_sha: str = ""
    received_at: float = 0.0
    approved: tuple[str, ...] = ()
    serves: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the pull request gave. `planned`: of the head, when that was asked for and is due.

    `is_withdrawn`: it is closed, and its routes are gone already. `is_anew`: it is open, but an earlier try of this
    look saw it closed and withdrew it, so its head must be deployed whatever is known of it.
    """

    facts: PullRequestFacts
    planned: PlanResult | None = None
    is_withdrawn: bool = False
    is_anew: bool = False


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """`built`: digests by `BuildJobRef.key` of an earlier run of this commit; those jobs are not built again.

    `serves`: a version is up, so its visitors keep it while the next one is built.
    """

    run_id: str
    project_id: str
    environment_id: str
    pr: int
    sha: str
    received_at: float = 0.0
    title: str = ""
    built: dict[str, str] = field(default_factory=dict)
    serves: bool = False


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A Plan and its build jobs, or why the repository cannot be taken (`failure`, for the user).

    The rows of the run and its jobs are written, the page of a preview that does not serve yet is announced. `urls`
    has one URL per `plan.exposes`, in its order. `placements`: where VMs may be ordered, the plan's own wish first.
    """

    plan: Plan | None = None
    jobs: tuple[BuildJobRef, ...] = ()
    urls: tuple[str, ...] = ()
    failure: FailureReport | None = None
    run_id: str = ""
    placements: tuple[Placement, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the timeline, keyed by (run_id, name, subject); writing it again updates it.

    Unix seconds; `seconds` from the VM's own clock where it measured. Names: webhook, plan, vm_boot, clone, build,
    push, merge, pull, up, health, route, teardown.
    """

    name: str
    state: RunState
    started_at: float
    subject: str = ""
    ended_at: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One event of the lifecycle, written whole: routes, then one transaction, then those who watch are nudged.

    The transaction holds the environment's state, message and time to live, its run's and job's states, timeline
    steps, an agent's command, and the intent to publish the comment. None or "" leaves a column as it is. `failure`
    is stored for the comment, the API and the CLI.
    """

    environment_id: str
    state: EnvironmentState | None = None
    message: str = ""
    run_id: str = ""
    run_state: RunState | None = None
    sha: str = ""
    vm_id: str = ""
    build_id: str = ""
    build_state: RunState | None = None
    build_vm_id: str = ""
    artifact: str = ""
    failure: FailureReport | None = None
    clear_failure: bool = False
    services: tuple[ServiceReport, ...] = ()
    steps: tuple[Step, ...] = ()
    route: RouteOrder | None = None
    command: CommandOrder | None = None
    lifetime: LifetimeRow | None = None
    publishes: bool = False


@dataclass(frozen=True, slots=True)
class LifetimeRow:
    """When the preview's time ends (Unix seconds, None: pinned or not counting), and its VM's dead-man deadline."""

    expires_at: float | None
    is_pinned: bool = False
    warning: str = ""
    vm_id: str = ""
    vm_expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Burial:
    """The end of an environment: `record` is written once the ledger knows no living VM and the images are deleted."""

    record: Record


@dataclass(frozen=True, slots=True)
class Buried:
    """`vms_left`: while there are any nothing was written; destroy those first."""

    vms_left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A build that waits for its turn."""

    build_id: str
    run_id: str
    environment_id: str


@dataclass(frozen=True, slots=True)
class MergeOrder:
    """Merge per-architecture digests of one target into one manifest list in `repository`."""

    service: str
    target: str
    repository: str
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteOrder:
    """Announce (`ready`, with the VM's address as the cloud says it), show a page (`building`, `failed`), or
    `withdrawn`.
    """

    environment_id: str
    status: str
    vm_id: str = ""
    phase: str = ""
    expose: tuple[Expose, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentRef:
    environment_id: str


@dataclass(frozen=True, slots=True)
class VmRef:
    """`provider`: where to destroy a VM that has no ledger row; "" when only the row may say so."""

    vm_id: str
    provider: str = ""


@dataclass(frozen=True, slots=True)
class VmCreated:
    vm_id: str
    created_at: float
