"""Workflow ids, queues, inputs, results, signals, updates: all of `workflows` that the api may import.

What only activities take and give is in orders.py, one sweep of the reaper in sweeps.py, under the same rules.
Frozen dataclasses of strings, numbers, enums and lists of those; seconds as numbers; no secrets. Fields are only ever
added, with defaults: running workflows decode what older code wrote.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from stagely.plan import BuildTarget, Expose
from stagely.states import VmRole

WORKFLOW_QUEUE = "stagely-workflows"
CORE_QUEUE = "stagely-core"  # Postgres, Redis, GitHub, registry.
CLOUD_QUEUE = "stagely-cloud"  # Cloud APIs.
CERTIFICATE_QUEUE = "stagely-certificates"  # Of workers that have the certificate's folder and the DNS token.


def environment_workflow_id(project_id: str, pr: int) -> str:
    return f"env/{project_id}/pr/{pr}"


def pipeline_workflow_id(run_id: str) -> str:
    return f"run/{run_id}"


def lease_workflow_id(vm_id: str) -> str:
    return f"vm/{vm_id}"


# --- environment ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timings:
    """Every duration of an environment's life, in seconds; tests pass shorter ones."""

    debounce_s: float = 2.0  # Several pushes within it become one run. Waits only while a push runs.
    create_limit_s: float = 1800.0  # For the cloud to make a VM; a full account is asked again within it.
    boot_timeout_s: float = 300.0  # From there to the agent's first HELLO; the gateway keeps it, this is the backstop.
    pull_timeout_s: float = 1860.0  # The agent's own limits on pulling and on what Compose builds there, 900 s each.
    lease_margin_s: float = 6 * 3600.0  # A preview's dead-man deadline: this long after its time to live.
    ttl_limit_s: float = 30 * 24 * 3600.0  # The installation's ceiling on what stagely.yaml asks for.
    answer_limit_s: float = 1800.0  # For GitHub to say what became of the pull request; asked again within it.
    unanswered_s: float = 60.0  # Pause after that time.


@dataclass(frozen=True, slots=True)
class EnvironmentInput:
    """Start of an EnvironmentWorkflow. Everything else is read from GitHub: a webhook is only a hint.

    `carried`: what the run before this one knew, after a continue-as-new. `history_limit`: events after which an
    environment at rest continues as new (the server's hard stop is 51,200). `inbox`: what came while a cancelled run
    was taking its VM down.
    """

    project_id: str
    pr: int
    timings: Timings = field(default_factory=Timings)
    history_limit: int = 2000
    carried: Carried | None = None
    inbox: tuple[PullRequestEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Carried:
    """Everything an environment at rest knows. Whatever a handler may set is in here."""

    facts: PullRequestFacts
    deliveries: tuple[str, ...] = ()
    vm: VmLeaseInput | None = None
    vm_expires_at: float = 0.0
    holds_data: bool = False
    serves: bool = False
    ttl_s: float = 0.0
    expires_at: float | None = None
    is_pinned: bool = False
    warning: str = ""
    losses: int = 0
    approved: tuple[str, ...] = ()
    awaits: str = ""
    last: LastPush | None = None


@dataclass(frozen=True, slots=True)
class LastPush:
    """How the last push ended. `built`: digests by `BuildJobRef.key`, for a retry that builds only what is missing."""

    run_id: str
    sha: str
    has_failed: bool = False
    built: dict[str, str] = field(default_factory=dict)


STARTING_ACTIONS = frozenset({"opened", "reopened", "redeploy"})
"""Actions that bring back an environment that was stopped or reaped; others only tell of changes."""


@dataclass(frozen=True, slots=True)
class PullRequestEvent:
    """Signal `pull_request_event`: something happened to the pull request; go and look.

    `action` tells a (re)opening from other changes, `received_at` (Unix seconds) is for the timeline.
    """

    delivery_id: str
    action: str = ""
    received_at: float = 0.0


# --- what people ask for: updates of EnvironmentWorkflow, refused by their validators with an ApplicationError ------
# whose type is a stable code (`ending`, `not_ready`, `nothing_failed`, `too_long`, `not_waiting`, `head_moved`).


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Update `stop`: end this environment though its pull request is open. Asked twice is asked once."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class ExtendRequest:
    """Update `extend`: move the end of a preview's time by `seconds` > 0, to MAX_AHEAD_S from now at most."""

    seconds: float
    by: str = ""


@dataclass(frozen=True, slots=True)
class PinRequest:
    """Update `pin`: keep the preview until its pull request closes, or (`pinned` false) count its time from now."""

    pinned: bool = True
    by: str = ""


@dataclass(frozen=True, slots=True)
class RedeployRequest:
    """Update `redeploy`: build and deploy the pull request's head once more; a push that runs is superseded."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """Update `retry`: go on from the step at which the last push failed; what was built is not built again."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class ApproveRequest:
    """Update `approve`: let an outsider's commit run. `sha` is the commit that was looked at, 40 hex digits."""

    sha: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What every update answers. `expires_at`: end of the preview's time (Unix seconds); None: pinned or not set."""

    expires_at: float | None = None
    is_pinned: bool = False


MAX_AHEAD_S = 30 * 24 * 3600.0  # A preview that is needed for longer is pinned, which somebody then sees.


class AgentEventKind(enum.StrEnum):
    """`lost`: the agent fell silent, or never spoke within its boot time, or two claimed to be it."""

    RESULT = "result"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ServiceReport:
    name: str
    status: str
    health: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class FailureReport:
    """What a person needs to know. `subject`: build target or service; `tail`: last 20 lines at most."""

    step: str
    message: str
    subject: str = ""
    exit_code: int | None = None
    tail: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """Signal `agent_event`, to the VM's owner (pipeline of a builder, environment of a preview).

    Sent at least once; (vm_id, boot_id, seq) tells repeats apart, LOST has seq 0, a result that the gateway gives
    itself (a command that cannot be sent) a negative one. Only results that a workflow waits for are sent: of build
    and deploy. That an agent is online is no news to a workflow; that it is not is LOST.
    """

    vm_id: str
    boot_id: str
    seq: int
    kind: AgentEventKind
    command_id: str = ""
    outcome: str = ""
    digest: str = ""
    failure: FailureReport | None = None
    services: tuple[ServiceReport, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)


# --- pipeline ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PipelineInput:
    """One push: build every job at `sha`. `urls`: build argument name to preview URL; `registry`: host:port for VMs."""

    run_id: str
    project_id: str
    environment_id: str
    repo: str
    sha: str
    jobs: tuple[BuildJobRef, ...]
    provider: str
    registry: str
    urls: dict[str, str]
    build_timeout_s: float
    keep_going: bool = False
    timings: Timings = field(default_factory=Timings)
    placements: tuple[Placement, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a VM may be ordered and how big; "" is the provider's default. Tried in order when one is sold out."""

    region: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """`reference`: repository@sha256:... of one Compose service, a manifest or manifest list."""

    service: str
    target: str
    reference: str


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """`failure` is None and `images` complete, or the first failed target's report.

    `built`: digests by `BuildJobRef.key` of all jobs that ended well, in either case.
    """

    images: tuple[BuiltImage, ...] = ()
    failure: FailureReport | None = None
    built: dict[str, str] = field(default_factory=dict)


# --- VM lease ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VmLeaseInput:
    """One VM from order to proven gone.

    `owner_workflow_id` gets its agent's events, `expires_in_s` is the dead-man deadline. `command` is written with
    the ledger row, so that the agent gets it with its first HELLO. `job`: build target, or "" for a preview. `wish`:
    the placement that was asked for, when it was sold out and this is another.
    """

    vm_id: str
    role: VmRole
    project_id: str
    environment_id: str
    owner_workflow_id: str
    provider: str
    expires_in_s: float
    region: str = ""
    size: str = ""
    arch: str = "amd64"
    run_id: str = ""
    build_id: str = ""
    job: str = ""
    command: CommandOrder | None = None
    create_limit_s: float = 1800.0
    wish: Placement | None = None


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """Signal `lease_ended`, to an owner that continued as new and so cannot see its child end."""

    vm_id: str
    result: VmLeaseResult


@dataclass(frozen=True, slots=True)
class VmLeaseResult:
    """Why the lease ended: `released`, `cancelled`, `expired` or `create_failed` (then `failure` says why)."""

    reason: str
    failure: FailureReport | None = None


# --- what these carry ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullRequestFacts:
    """The pull request as GitHub says it is now, and its environment's row (made on first sight of an open one).

    `environment_id` is "" when the pull request is closed and nothing of it lives. `repo` is the clone URL for VMs,
    `registry` the host:port under which VMs push and pull. `is_foreign`: the commit comes from another repository, so
    nothing of it runs before somebody approved it. `vms`: those of the environment that the ledger does not know to be
    gone.
    """

    is_open: bool
    sha: str
    title: str
    repo: str
    environment_id: str = ""
    hash: str = ""
    provider: str = "local"
    registry: str = ""
    repo_full_name: str = ""
    is_foreign: bool = False
    vms: tuple[str, ...] = ()
    project_id: str = ""
    pr: int = 0


@dataclass(frozen=True, slots=True)
class BuildJobRef:
    """One row of build_jobs: `build_id` is the row's id. `digest`: built before. `has_slot`: it may begin at once."""

    build_id: str
    target: BuildTarget
    arch: str
    digest: str = ""
    has_slot: bool = False

    @property
    def key(self) -> str:
        """The job's name across runs of one commit."""
        return f"{self.target.name}/{self.arch}"


@dataclass(frozen=True, slots=True)
class CommandOrder:
    """A row of agent_commands to be; the gateway builds the protocol message from it and pushes it until answered.

    `kind`: build, deploy, prepare, stop, certify. The same command_id a second time changes nothing.
    """

    command_id: str
    vm_id: str
    kind: str
    environment_id: str
    run_id: str = ""
    build: BuildOrder | None = None
    deploy: DeployOrder | None = None
    pull: tuple[str, ...] = ()
    target_id: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    repo: str
    sha: str
    target: BuildTarget
    arch: str
    push_to: str
    cache: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class DeployOrder:
    repo: str
    sha: str
    compose_files: tuple[str, ...]
    images: tuple[BuiltImage, ...]
    expose: tuple[Expose, ...]
    urls: tuple[str, ...]
    health_timeout_s: float
    profiles: tuple[str, ...] = ()
