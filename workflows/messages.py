"""Every input, result, signal, workflow id and task queue name: all of `workflows` that the api may import.

Frozen dataclasses of strings, numbers, enums and lists of those; seconds as numbers; no secrets. Fields are only ever
added, with defaults: running workflows decode what older code wrote.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from stagely.plan import BuildTarget, Expose, Plan, PreviewSpec
from stagely.states import EnvironmentState, RunState, VmRole

WORKFLOW_QUEUE = "stagely-workflows"
CORE_QUEUE = "stagely-core"  # Postgres, Redis, GitHub, registry.
CLOUD_QUEUE = "stagely-cloud"  # Cloud APIs.


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

    debounce_s: float = 2.0  # Several pushes within it become one run. Waits only while a pipeline runs.
    boot_timeout_s: float = 300.0  # Order of a VM until its agent's first HELLO; clouds take 30 to 120 s.
    builder_lease_s: float = 3600.0  # Dead-man deadline of a builder, beyond boot and build limits.
    pull_timeout_s: float = 1860.0  # The agent's own limits on pulling and on what Compose builds there, 900 s each.
    lease_margin_s: float = 6 * 3600.0  # A preview's dead-man deadline: this long after its time to live.
    ttl_s: float = 24 * 3600.0  # From the last deploy.
    unanswered_s: float = 60.0  # Pause after half an hour of asking GitHub in vain.


@dataclass(frozen=True, slots=True)
class EnvironmentInput:
    """Start of an EnvironmentWorkflow. Everything else is read from GitHub: a webhook is only a hint."""

    project_id: str
    pr: int
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class PullRequestEvent:
    """Signal `pull_request_event`: something happened to the pull request; go and look.

    `action` tells a (re)opening from other changes, `received_at` (Unix seconds) is for the timeline.
    """

    delivery_id: str
    action: str = ""
    received_at: float = 0.0


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Signal `stop`: end this environment though its pull request is open. `by` is for the log."""

    by: str = ""


class AgentEventKind(enum.StrEnum):
    ONLINE = "online"
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

    Sent at least once; (vm_id, boot_id, seq) tells repeats apart, ONLINE and LOST have seq 0, a result
    that the gateway gives itself (a command that cannot be sent) a negative one.
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


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """`reference`: repository@sha256:... of one Compose service, a manifest or manifest list."""

    service: str
    target: str
    reference: str


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """`failure` is None and `images` complete, or the first failed target's report."""

    images: tuple[BuiltImage, ...] = ()
    failure: FailureReport | None = None


# --- VM lease ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VmLeaseInput:
    """One VM from order to proven gone.

    `owner_workflow_id` gets its agent's events, `expires_in_s` is the dead-man deadline. `command` is written with
    the ledger row, so that the agent gets it with its first HELLO. `job`: build target, or "" for a preview.
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


@dataclass(frozen=True, slots=True)
class VmLeaseResult:
    """Why the lease ended: `released`, `expired` or `create_failed` (then `failure` says why)."""

    reason: str
    failure: FailureReport | None = None


# --- activity inputs and results -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullRequestRef:
    """`action` of the webhook decides only whether an environment that ended comes back."""

    project_id: str
    pr: int
    action: str = ""


@dataclass(frozen=True, slots=True)
class PullRequestFacts:
    """The pull request as GitHub says it is now, and its environment's row (made on first sight of an open one).

    `environment_id` is "" when the pull request is closed and nothing of it lives. `repo` is the clone URL for VMs,
    `registry` the host:port under which VMs push and pull.
    """

    is_open: bool
    sha: str
    title: str
    repo: str
    environment_id: str = ""
    hash: str = ""
    provider: str = "local"
    registry: str = ""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    run_id: str
    project_id: str
    environment_id: str
    pr: int
    sha: str
    received_at: float = 0.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A Plan and its build jobs, or why the repository cannot be taken (`failure`, for the user).

    The rows of the run and its jobs are written. `urls` has one URL per `plan.exposes`, in its order.
    """

    plan: Plan | None = None
    jobs: tuple[BuildJobRef, ...] = ()
    urls: tuple[str, ...] = ()
    failure: FailureReport | None = None


@dataclass(frozen=True, slots=True)
class BuildJobRef:
    """One row of build_jobs: `build_id` is the row's id."""

    build_id: str
    target: BuildTarget
    arch: str


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
    """One transaction: the environment's state and message, its run's and job's states, timeline steps.

    None or "" leaves a column as it is. `failure` is stored for the comment, the API and the CLI.
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


@dataclass(frozen=True, slots=True)
class CommandOrder:
    """A row of agent_commands to be; the gateway builds the protocol message from it and pushes it until answered.

    `kind`: build, deploy, prepare, stop. The same command_id a second time changes nothing.
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


@dataclass(frozen=True, slots=True)
class MergeOrder:
    """Merge per-architecture digests of one target into one manifest list in `repository`."""

    service: str
    target: str
    repository: str
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteOrder:
    """Announce (`ready` with the VM's address as the cloud says it), or show a page (`building`, `failed`)."""

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
    vm_id: str


@dataclass(frozen=True, slots=True)
class VmCreated:
    vm_id: str
    created_at: float


__all__ = [
    "CLOUD_QUEUE",
    "CORE_QUEUE",
    "WORKFLOW_QUEUE",
    "AgentEvent",
    "AgentEventKind",
    "BuildJobRef",
    "BuildOrder",
    "BuildTarget",
    "BuiltImage",
    "CommandOrder",
    "DeployOrder",
    "EnvironmentInput",
    "EnvironmentRef",
    "EnvironmentState",
    "Expose",
    "FailureReport",
    "MergeOrder",
    "PipelineInput",
    "PipelineResult",
    "Plan",
    "PlanRequest",
    "PlanResult",
    "PreviewSpec",
    "PullRequestEvent",
    "PullRequestFacts",
    "PullRequestRef",
    "Record",
    "RouteOrder",
    "RunState",
    "ServiceReport",
    "Step",
    "StopRequest",
    "Timings",
    "VmCreated",
    "VmLeaseInput",
    "VmLeaseResult",
    "VmRef",
    "VmRole",
    "environment_workflow_id",
    "lease_workflow_id",
    "pipeline_workflow_id",
]
