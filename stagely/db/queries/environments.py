"""What the api reads and writes for people and webhooks: projects, environments as a whole, logs, the webhook inbox.

Everything that a person asks for is limited to one team: a foreign id finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.models import utc_now
from stagely.db.tables import (
    api_tokens,
    build_jobs,
    build_slots,
    environments,
    log_chunks,
    projects,
    pull_request_comments,
    steps,
    vms,
    webhook_deliveries,
    workflow_runs,
)
from stagely.errors import Conflict, NotFound
from stagely.ids import mint
from stagely.packing import unpack
from stagely.states import GONE

LIST_LIMIT = 200
LOG_PAGE = 500  # Chunks; an agent's are 64 KiB at most.
DISPATCH_PAGE = 100

Json = Mapping[str, Any]  # Any: what a JSON column holds; the writer's class is named where it is read.


@dataclass(frozen=True, slots=True)
class TokenView:
    team_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ProjectView:
    id: str
    team_id: str
    slug: str
    repo_url: str
    repo_full_name: str


@dataclass(frozen=True, slots=True)
class JobView:
    """`position`: its place among the builds that wait for a slot, 1 is next; None: it does not wait."""

    run_id: str
    name: str
    arch: str
    state: str
    vm_id: str
    position: int | None


@dataclass(frozen=True, slots=True)
class RunView:
    id: str
    number: int
    sha: str
    state: str


@dataclass(frozen=True, slots=True)
class StepView:
    run_id: str
    name: str
    subject: str
    state: str
    started_at: datetime
    ended_at: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """One environment with its latest run. `exposes`: {service, port, label, url}; `failure`: a FailureReport."""

    id: str
    project: ProjectView
    pr: int
    title: str
    state: str
    message: str
    sha: str
    since: datetime
    created_at: datetime
    exposes: Sequence[Json]
    services: Sequence[Json]
    failure: Json | None
    comment_id: int | None
    expires_at: datetime | None
    is_pinned: bool
    run: RunView | None
    jobs: Sequence[JobView]
    steps: Sequence[StepView]


@dataclass(frozen=True, slots=True)
class EnvironmentFilter:
    """None and "" mean any; `project` is a slug or id, `repo` a full name or URL."""

    project: str = ""
    repo: str = ""
    pr: int | None = None
    with_gone: bool = False


@dataclass(frozen=True, slots=True)
class LogView:
    id: int
    run_id: str
    stream: str
    at: datetime
    data: bytes


@dataclass(frozen=True, slots=True)
class LogFilter:
    environment_id: str
    after: int = 0
    run_id: str = ""
    stream: str = ""


@dataclass(frozen=True, slots=True)
class VmView:
    id: str
    role: str
    job: str
    state: str
    address: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that must reach its environment's workflow."""

    delivery_id: str
    action: str
    project_id: str
    pr: int
    received_at: datetime


async def owner_of_token(engine: AsyncEngine, token_sha256: str) -> TokenView | None:
    """The team that this token speaks for, and the token's name."""
    columns = (api_tokens.c.team_id, api_tokens.c.name)
    async with engine.connect() as db:
        rows = await db.execute(select(*columns).where(api_tokens.c.token_sha256 == token_sha256))
        found = rows.one_or_none()
        return TokenView(found.team_id, found.name) if found else None


async def create_project(
    engine: AsyncEngine, team_id: str, slug: str, repo_url: str, repo_full_name: str, provider: str
) -> tuple[ProjectView, bool]:
    """The team's project of this repository, and whether it was made now. Raises Conflict."""
    values = {
        "id": mint("prj"), "team_id": team_id, "slug": slug, "repo_url": repo_url, "repo_full_name": repo_full_name,
        "installation_id": 0, "provider": provider, "created_at": utc_now(),
    }  # fmt: skip
    try:
        async with engine.begin() as db:
            statement = insert(projects).values(**values).on_conflict_do_nothing(index_elements=["repo_url"])
            made = (await db.execute(statement.returning(*_PROJECT))).one_or_none()
            found = made or (await db.execute(select(*_PROJECT).where(projects.c.repo_url == repo_url))).one()
    except IntegrityError as error:
        raise Conflict(f"the name {slug!r} belongs to another project. Choose another slug.") from error
    if found.team_id != team_id:
        raise Conflict(f"{repo_url} belongs to a project that is not yours. Ask its team for access.")
    return _project(found), made is not None


async def list_projects(engine: AsyncEngine, team_id: str) -> list[ProjectView]:
    async with engine.connect() as db:
        rows = await db.execute(select(*_PROJECT).where(projects.c.team_id == team_id).order_by(projects.c.slug))
        return [_project(row) for row in rows]


async def project_of_repository(engine: AsyncEngine, repo_full_name: str) -> ProjectView | None:
    """The project that webhooks of this repository belong to; GitHub's names ignore case."""
    same = func.lower(projects.c.repo_full_name) == repo_full_name.lower()
    async with engine.connect() as db:
        rows = await db.execute(select(*_PROJECT).where(same).order_by(projects.c.created_at).limit(1))
        found = rows.one_or_none()
        return _project(found) if found else None


async def list_environments(engine: AsyncEngine, team_id: str, wanted: EnvironmentFilter) -> list[EnvironmentView]:
    """Newest first, at most LIST_LIMIT."""
    where: list[ColumnElement[bool]] = [environments.c.team_id == team_id]
    if wanted.project:
        where.append(or_(projects.c.slug == wanted.project, projects.c.id == wanted.project))
    if wanted.repo:
        where.append(or_(projects.c.repo_full_name == wanted.repo, projects.c.repo_url == wanted.repo))
    if wanted.pr is not None:
        where.append(environments.c.pr_number == wanted.pr)
    if not wanted.with_gone:
        where.append(environments.c.status.not_in([str(state) for state in GONE]))
    async with engine.connect() as db:
        return await _environments(db, where)


async def get_environment(engine: AsyncEngine, team_id: str, environment_id: str) -> EnvironmentView:
    """Raises NotFound, for a foreign one too."""
    where = [environments.c.team_id == team_id, environments.c.id == environment_id]
    async with engine.connect() as db:
        found = await _environments(db, where)
    if not found:
        raise NotFound(f"there is no environment {environment_id}. `stagely ls --all` shows yours.")
    return found[0]


async def read_logs(engine: AsyncEngine, wanted: LogFilter) -> list[LogView]:
    """The next chunks in order, at most LOG_PAGE."""
    where = [log_chunks.c.environment_id == wanted.environment_id, log_chunks.c.id > wanted.after]
    if wanted.run_id:
        where.append(log_chunks.c.run_id == wanted.run_id)
    if wanted.stream:
        where.append(log_chunks.c.stream == wanted.stream)
    c = log_chunks.c
    columns = (c.id, c.run_id, c.stream, c.at, c.codec, c.data)
    async with engine.connect() as db:
        rows = await db.execute(select(*columns).where(*where).order_by(c.id).limit(LOG_PAGE))
        return [LogView(row.id, row.run_id, row.stream, row.at, unpack(row.codec, row.data)) for row in rows]


async def is_gone(engine: AsyncEngine, environment_id: str) -> bool:
    """Whether nothing more will be written about this environment."""
    async with engine.connect() as db:
        found = await db.execute(select(environments.c.status).where(environments.c.id == environment_id))
        return found.scalar_one_or_none() in (None, *GONE)


async def list_vms(engine: AsyncEngine, environment_id: str) -> list[VmView]:
    """The ledger's rows of one environment, oldest first."""
    columns = (vms.c.id, vms.c.role, vms.c.job, vms.c.state, vms.c.address, vms.c.created_at)
    statement = select(*columns).where(vms.c.environment_id == environment_id).order_by(vms.c.created_at, vms.c.id)
    async with engine.connect() as db:
        rows = await db.execute(statement)
        return [VmView(row.id, row.role, row.job, row.state, row.address, row.created_at) for row in rows]


async def keep_delivery(engine: AsyncEngine, event: str, repo_full_name: str, delivery: Delivery) -> bool:
    """Put a webhook into the inbox. False: this delivery was dispatched before, there is nothing left to do."""
    statement = insert(webhook_deliveries).values(
        delivery_id=delivery.delivery_id, event=event, action=delivery.action, repo_full_name=repo_full_name,
        project_id=delivery.project_id, pr_number=delivery.pr, received_at=delivery.received_at,
    )  # fmt: skip
    dispatched = select(webhook_deliveries.c.dispatched_at).where(
        webhook_deliveries.c.delivery_id == delivery.delivery_id
    )
    async with engine.begin() as db:
        await db.execute(statement.on_conflict_do_nothing())
        return (await db.execute(dispatched)).scalar_one() is None


async def undispatched(engine: AsyncEngine, received_before: datetime) -> list[Delivery]:
    """Webhooks that Temporal has not taken yet, oldest first."""
    inbox = webhook_deliveries.c
    columns = (inbox.delivery_id, inbox.action, inbox.project_id, inbox.pr_number, inbox.received_at)
    where = (inbox.dispatched_at.is_(None), inbox.received_at <= received_before, inbox.project_id != "")
    async with engine.connect() as db:
        rows = await db.execute(select(*columns).where(*where).order_by(inbox.received_at).limit(DISPATCH_PAGE))
        return [Delivery(r.delivery_id, r.action, r.project_id, r.pr_number, r.received_at) for r in rows]


async def mark_dispatched(engine: AsyncEngine, delivery_id: str) -> None:
    async with engine.begin() as db:
        where = webhook_deliveries.c.delivery_id == delivery_id
        await db.execute(update(webhook_deliveries).where(where).values(dispatched_at=utc_now()))


async def _environments(db: AsyncConnection, where: Sequence[ColumnElement[bool]]) -> list[EnvironmentView]:
    its_comment = (pull_request_comments.c.project_id == environments.c.project_id) & (
        pull_request_comments.c.pr_number == environments.c.pr_number
    )
    joined = environments.join(projects, projects.c.id == environments.c.project_id)
    joined = joined.outerjoin(pull_request_comments, its_comment)
    newest = (environments.c.created_at.desc(), environments.c.id)
    statement = select(*_ENVIRONMENT, *_PROJECT_LABELLED).select_from(joined).where(*where)
    rows = list(await db.execute(statement.order_by(*newest).limit(LIST_LIMIT)))
    run_ids = [row.run_id for row in rows if row.run_id]
    runs = {run.id: run for run in await _runs(db, run_ids)}
    jobs = await _jobs(db, run_ids)
    marks = await _steps(db, [row.id for row in rows])
    return [_environment(row, runs.get(row.run_id), jobs, marks) for row in rows]


async def _runs(db: AsyncConnection, run_ids: Sequence[str]) -> list[RunView]:
    table = workflow_runs.c
    columns = (table.id, table.number, table.sha, table.status)
    rows = await db.execute(select(*columns).where(table.id.in_(run_ids)))
    return [RunView(row.id, row.number, row.sha, row.status) for row in rows]


async def _jobs(db: AsyncConnection, run_ids: Sequence[str]) -> list[JobView]:
    table, slot, ahead = build_jobs.c, build_slots.alias("mine"), build_slots.alias("ahead")
    waiting = slot.c.granted_at.is_(None)
    before = select(func.count()).where(ahead.c.granted_at.is_(None), ahead.c.number <= slot.c.number)
    position = case((waiting & slot.c.number.is_not(None), before.scalar_subquery())).label("position")
    columns = (table.workflow_run_id, table.name, table.arch, table.status, table.vm_id, position)
    joined = build_jobs.outerjoin(slot, slot.c.build_id == table.id)
    query = select(*columns).select_from(joined).where(table.workflow_run_id.in_(run_ids))
    rows = await db.execute(query.order_by(table.name, table.arch))
    return [JobView(row.workflow_run_id, row.name, row.arch, row.status, row.vm_id, row.position) for row in rows]


async def _steps(db: AsyncConnection, environment_ids: Sequence[str]) -> dict[str, list[StepView]]:
    table = steps.c
    rows = await db.execute(select(steps).where(table.environment_id.in_(environment_ids)).order_by(table.started_at))
    found: dict[str, list[StepView]] = {}
    for row in rows:
        step = StepView(row.run_id, row.name, row.subject, row.state, row.started_at, row.ended_at, row.detail)
        found.setdefault(row.environment_id, []).append(step)
    return found


def _environment(
    row: Row[*tuple[Any, ...]], run: RunView | None, jobs: Sequence[JobView], marks: Mapping[str, Sequence[StepView]]
) -> EnvironmentView:
    return EnvironmentView(
        id=row.id,
        project=ProjectView(row.project_id, row.team_id, row.slug, row.repo_url, row.repo_full_name),
        pr=row.pr_number,
        title=row.title,
        state=row.status,
        message=row.message,
        sha=row.sha,
        since=row.status_since,
        created_at=row.created_at,
        exposes=row.exposes,
        services=row.services,
        failure=row.failure,
        comment_id=row.comment_id,
        expires_at=row.expires_at,
        is_pinned=row.is_pinned,
        run=run,
        jobs=[job for job in jobs if run and job.run_id == run.id],
        # Steps of the latest run, and those of no run: the environment's own, such as its teardown.
        steps=[step for step in marks.get(row.id, ()) if step.run_id in ("", row.run_id)],
    )


def _project(row: Row[*tuple[Any, ...]]) -> ProjectView:
    return ProjectView(row.id, row.team_id, row.slug, row.repo_url, row.repo_full_name)


_PROJECT = (
    projects.c.id,
    projects.c.team_id,
    projects.c.slug,
    projects.c.repo_url,
    projects.c.repo_full_name,
)
_PROJECT_LABELLED = (projects.c.slug, projects.c.repo_url, projects.c.repo_full_name)
_ENVIRONMENT = (
    environments.c.id,
    environments.c.team_id,
    environments.c.project_id,
    environments.c.pr_number,
    environments.c.title,
    environments.c.status,
    environments.c.message,
    environments.c.sha,
    environments.c.run_id,
    environments.c.status_since,
    environments.c.created_at,
    environments.c.exposes,
    environments.c.services,
    environments.c.failure,
    environments.c.expires_at,
    environments.c.is_pinned,
    pull_request_comments.c.comment_id,
)
