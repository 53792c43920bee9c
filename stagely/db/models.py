"""Tables. No methods, no relationships (so nothing orders inserts: flush parents first or write Core inserts).

Times are UTC. Every row below a team carries `team_id`. States are the words of `stagely.states`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel


def utc_now() -> datetime:
    return datetime.now(UTC)


def _time(*, nullable: bool = False, index: bool = False) -> Any:  # Any: SQLModel's Field is typed so.
    kind = DateTime(timezone=True)
    if nullable:
        return Field(default=None, sa_type=kind, nullable=True, index=index)
    return Field(default_factory=utc_now, sa_type=kind, nullable=False, index=index)


class Team(SQLModel, table=True):
    __tablename__ = "teams"
    id: str = Field(primary_key=True)
    slug: str = Field(unique=True)
    name: str
    created_at: datetime = _time()


class ApiToken(SQLModel, table=True):
    """`token_sha256` is the hex digest; the token itself is shown once and never stored."""

    __tablename__ = "api_tokens"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    name: str
    token_sha256: str = Field(unique=True)
    created_at: datetime = _time()


class Project(SQLModel, table=True):
    """One repository of one team. `repo_full_name` is GitHub's owner/name; `provider` where its VMs run."""

    __tablename__ = "projects"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    slug: str
    repo_url: str = Field(unique=True)
    repo_full_name: str = Field(index=True)
    installation_id: int = 0
    provider: str = "local"
    created_at: datetime = _time()
    __table_args__ = (UniqueConstraint("team_id", "slug"),)


class Environment(SQLModel, table=True):
    """One life of a pull request's environment; a reopened pull request gets a new row (and a new hash).

    `expires_at`: end of the preview's time, None while nothing counts; `warning`: the last one given about it.
    """

    __tablename__ = "environments"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    project_id: str = Field(foreign_key="projects.id", index=True)
    pr_number: int
    title: str = ""
    subdomain_hash: str = Field(unique=True)
    status: str = Field(index=True)
    message: str = ""
    sha: str = ""
    run_id: str = ""
    vm_id: str = Field(default="", index=True)  # Heartbeats are by VM.
    vm_ip: str = ""
    labels: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    services: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    exposes: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    failure: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    expires_at: datetime | None = _time(nullable=True)
    is_pinned: bool = False
    warning: str = ""
    last_heartbeat: datetime | None = _time(nullable=True)  # The one that last brought `services`.
    status_since: datetime = _time()
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)
    __table_args__ = (
        Index(
            "environments_one_living_per_pr",
            "project_id",
            "pr_number",
            unique=True,
            postgresql_where=text("status NOT IN ('terminated', 'reaped')"),
        ),
    )


class WorkflowRun(SQLModel, table=True):
    """One push. `number` counts from 1 within the environment."""

    __tablename__ = "workflow_runs"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    environment_id: str = Field(foreign_key="environments.id", index=True)
    number: int = 1
    sha: str
    status: str
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class BuildJob(SQLModel, table=True):
    """One target for one architecture. `artifact_url` is repository@digest."""

    __tablename__ = "build_jobs"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    workflow_run_id: str = Field(foreign_key="workflow_runs.id", index=True)
    name: str
    arch: str
    status: str
    artifact_url: str = ""
    vm_id: str = ""
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class BuildSlot(SQLModel, table=True):
    """A build's place among those that may run: waiting in the order of `number` until `granted_at` is set.

    The row goes when its job or run ends.
    """

    __tablename__ = "build_slots"
    build_id: str = Field(primary_key=True)
    team_id: str = Field(index=True)
    environment_id: str = Field(foreign_key="environments.id", index=True)
    run_id: str = Field(index=True)
    number: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), nullable=False, unique=True))
    queued_at: datetime = _time()
    granted_at: datetime | None = _time(nullable=True)


class PullRequestComment(SQLModel, table=True):
    """The one comment of a pull request, and whether it says what its newest environment's row says.

    `wanted` counts the changes, `done` is the last one that was published; `due_at` is when to try (again).
    """

    __tablename__ = "pull_request_comments"
    project_id: str = Field(foreign_key="projects.id", primary_key=True)
    pr_number: int = Field(primary_key=True)
    team_id: str = Field(index=True)
    comment_id: int | None = Field(default=None, sa_type=BigInteger)
    wanted: int = 0
    done: int = 0
    attempts: int = 0
    last_error: str = ""
    due_at: datetime = _time()
    __table_args__ = (Index("pull_request_comments_due", "due_at", postgresql_where=text("wanted > done")),)


class Vm(SQLModel, table=True):
    """The ledger: written before any cloud call, closed when the VM is proven gone.

    `public_key`: the agent's Ed25519 key (hex), bound by its first HELLO. `session_sha256`: digest of what its next
    HELLO must show, `previous_session_sha256` of what its last one showed. `owner_workflow_id` gets its events.
    `running_at`: when the cloud had made it; `online_at`: its agent's first HELLO. `certify_at`: when to look after its
    certificate next, None is at once.
    """

    __tablename__ = "vms"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    project_id: str = Field(foreign_key="projects.id", index=True)
    environment_id: str = Field(foreign_key="environments.id", index=True)
    run_id: str = ""
    build_id: str = ""
    job: str = ""
    role: str
    provider: str
    region: str = ""
    size: str = ""
    arch: str = "amd64"
    native_id: str = ""
    address: str = ""
    owner_workflow_id: str
    state: str = Field(index=True)
    public_key: str = ""
    session_sha256: str = ""
    previous_session_sha256: str = ""
    boot_id: str = ""
    expires_at: datetime = _time()
    created_at: datetime = _time()
    running_at: datetime | None = _time(nullable=True)
    online_at: datetime | None = _time(nullable=True)
    last_seen_at: datetime | None = _time(nullable=True)
    gone_at: datetime | None = _time(nullable=True)
    certify_at: datetime | None = _time(nullable=True)
    __table_args__ = (
        Index("vms_to_certify", "certify_at", postgresql_where=text("state = 'running' AND role = 'preview'")),
    )


class ReaperSighting(SQLModel, table=True):
    """What a sweep found out of order, and in how many sweeps in a row. The first one that does not see it forgets it.

    `kind` is a workflows.sweeps.Leftover, `scope` the provider whose list showed it ("" elsewhere).
    """

    __tablename__ = "reaper_sightings"
    kind: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    sweep_id: str
    count: int = 1
    first_seen_at: datetime = _time()


class GatewayBeat(SQLModel, table=True):
    """A gateway that could hear agents from `since` to `beat_at` without a gap."""

    __tablename__ = "gateway_beats"
    instance: str = Field(primary_key=True)
    since: datetime = _time()
    beat_at: datetime = _time()


class WebhookDelivery(SQLModel, table=True):
    """The inbox of GitHub's webhooks; `dispatched_at` is set when Temporal took the signal."""

    __tablename__ = "webhook_deliveries"
    delivery_id: str = Field(primary_key=True)
    event: str
    action: str = ""
    repo_full_name: str = Field(index=True)
    project_id: str = ""
    pr_number: int = 0
    received_at: datetime = _time(index=True)
    dispatched_at: datetime | None = _time(nullable=True)


class AgentEventRow(SQLModel, table=True):
    """The inbox of agents' STATUS and RESULT messages; `forwarded_at` is set when the owner's workflow took it."""

    __tablename__ = "agent_events"
    vm_id: str = Field(primary_key=True)
    boot_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    team_id: str = ""
    kind: str
    command_id: str = ""
    body: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    received_at: datetime = _time()
    forwarded_at: datetime | None = _time(nullable=True)
    __table_args__ = (
        Index("agent_events_open", "received_at", postgresql_where=text("forwarded_at IS NULL")),  # Read every 2 s.
    )


class AgentCommand(SQLModel, table=True):
    """The outbox to agents: `body` is a workflows.messages.CommandOrder without secrets; open until `answered_at`."""

    __tablename__ = "agent_commands"
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True)
    vm_id: str = Field(foreign_key="vms.id", index=True)
    environment_id: str = Field(foreign_key="environments.id", index=True)
    run_id: str = ""
    kind: str
    body: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: datetime = _time()
    sent_at: datetime | None = _time(nullable=True)
    answered_at: datetime | None = _time(nullable=True)
    __table_args__ = (
        Index("agent_commands_open", "vm_id", postgresql_where=text("answered_at IS NULL")),  # Read every 3 s.
    )


class LogChunk(SQLModel, table=True):
    """Whole lines of one stream in UTF-8, from one or more messages of an agent; `seq` is the last one's number.

    Everything up to the highest `seq` of (vm_id, boot_id), here and in agent_events, is stored.
    `codec` says how `data` is to be read, see stagely.packing.
    """

    __tablename__ = "log_chunks"
    vm_id: str = Field(primary_key=True)
    boot_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), nullable=False, unique=True))
    environment_id: str = Field(index=True)
    run_id: str = Field(default="", index=True)
    stream: str
    at: datetime = _time()
    codec: int = Field(default=0, sa_column=Column(SmallInteger, nullable=False, server_default="0"))
    data: bytes = Field(sa_type=LargeBinary)


class StepRow(SQLModel, table=True):
    """The timeline that people see; (environment_id, run_id, name, subject) names a step."""

    __tablename__ = "steps"
    environment_id: str = Field(primary_key=True)
    run_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    team_id: str = ""
    state: str
    started_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)
    detail: str = ""
