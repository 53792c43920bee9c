"""The lives of environments: made on first sight of an open pull request, planned per push, read by activities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.models import utc_now
from stagely.db.tables import agent_events, build_jobs, environments, projects, teams, vms, workflow_runs
from stagely.errors import NotFound
from stagely.ids import mint, subdomain_hash
from stagely.states import GONE, EnvironmentState, RunState

_GONE = [str(state) for state in GONE]


@dataclass(frozen=True, slots=True)
class ProjectRow:
    id: str
    team_id: str
    team_slug: str
    slug: str
    repo_url: str
    repo_full_name: str
    provider: str


@dataclass(frozen=True, slots=True)
class LifeRow:
    """One environment with what routes and comments need of its project and team."""

    id: str
    project: ProjectRow
    pr: int
    hash: str
    state: EnvironmentState
    message: str
    sha: str
    run_id: str
    since: float
    labels: tuple[str, ...]
    exposes: tuple[Mapping[str, Any], ...]  # Any: JSON, keys service, port, label, url.
    failure: Mapping[str, Any] | None  # Any: JSON of a FailureReport.
    expires_at: float | None
    is_pinned: bool
    warning: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """`artifact`: repository@digest of an earlier run's image, for a job that need not build; else ""."""

    build_id: str
    name: str
    arch: str
    artifact: str = ""


async def project(engine: AsyncEngine, project_id: str) -> ProjectRow:
    """Raises NotFound."""
    async with engine.connect() as db:
        row = (await db.execute(_projects().where(projects.c.id == project_id))).one_or_none()
    if row is None:
        raise NotFound(f"project {project_id} does not exist")
    return _project(row)


async def living(engine: AsyncEngine, project_id: str, pr: int) -> LifeRow | None:
    """The living environment of a pull request, if there is one."""
    async with engine.connect() as db:
        return await _one(db, _of(project_id, pr))


async def last_sha(engine: AsyncEngine, project_id: str, pr: int) -> str:
    """The commit of the newest environment of a pull request, living or not; "" when there was none."""
    e = environments.c
    query = select(e.sha).where(e.project_id == project_id, e.pr_number == pr).order_by(e.created_at.desc()).limit(1)
    async with engine.connect() as db:
        return (await db.execute(query)).scalar() or ""


async def living_or_new(engine: AsyncEngine, found: ProjectRow, pr: int, title: str, sha: str) -> LifeRow:
    """The living environment, made if there is none; two callers at once get the same one."""
    async with engine.begin() as db:
        await db.execute(
            insert(environments)
            .values(
                id=mint("env"), team_id=found.team_id, project_id=found.id, pr_number=pr, title=title[:300],
                subdomain_hash=subdomain_hash(), status=EnvironmentState.QUEUED, message="waiting for its turn",
                sha=sha, run_id="", vm_id="", vm_ip="", labels=[], services=[], exposes=[], created_at=utc_now(),
                status_since=utc_now(),
            )
            .on_conflict_do_nothing()
        )  # fmt: skip
        row = await _one(db, _of(found.id, pr))
    assert row is not None  # Inserted above, or there before.
    return row


async def life(engine: AsyncEngine, environment_id: str) -> LifeRow:
    """One environment, living or not. Raises NotFound."""
    async with engine.connect() as db:
        row = await _one(db, environments.c.id == environment_id)
    if row is None:
        raise NotFound(f"environment {environment_id} does not exist")
    return row


async def begin_run(db: AsyncConnection, environment_id: str, run_id: str, sha: str) -> None:
    """The row of one push. A second call changes nothing, but for a head that moved since the first one died."""
    number = select(func.count() + 1).where(workflow_runs.c.environment_id == environment_id).scalar_subquery()
    await db.execute(
        insert(workflow_runs)
        .values(
            id=run_id, team_id=_team_of(environment_id), environment_id=environment_id, number=number, sha=sha,
            status=RunState.RUNNING, created_at=utc_now(),
        )
        .on_conflict_do_update(index_elements=["id"], set_={"sha": sha})
    )  # fmt: skip


async def add_jobs(db: AsyncConnection, environment_id: str, run_id: str, jobs: Sequence[NewJob]) -> None:
    """The rows of a run's builds. A second call changes nothing, but for a head that moved, as above."""
    for job in jobs:
        await db.execute(
            insert(build_jobs)
            .values(
                id=job.build_id, team_id=_team_of(environment_id), workflow_run_id=run_id, name=job.name,
                arch=job.arch, status=RunState.COMPLETED if job.artifact else RunState.PENDING,
                artifact_url=job.artifact, vm_id="", created_at=utc_now(),
                ended_at=utc_now() if job.artifact else None,
            )
            .on_conflict_do_update(index_elements=["id"], set_={"name": job.name, "arch": job.arch})
        )  # fmt: skip


async def set_exposes(
    db: AsyncConnection, environment_id: str, exposes: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> None:
    """What the environment shows to the world, main URL first. Labels are only ever added, so none is left routed."""
    old = (await db.execute(select(environments.c.labels).where(environments.c.id == environment_id))).scalar_one()
    await db.execute(
        update(environments)
        .where(environments.c.id == environment_id)
        .values(exposes=[dict(e) for e in exposes], labels=list(dict.fromkeys([*old, *labels])))
    )


async def artifacts(engine: AsyncEngine, environment_id: str) -> set[str]:
    """repository@digest of everything an environment's builds pushed, as jobs recorded and as agents reported."""
    async with engine.connect() as db:
        recorded = await db.execute(
            select(build_jobs.c.artifact_url)
            .join(workflow_runs, workflow_runs.c.id == build_jobs.c.workflow_run_id)
            .where(workflow_runs.c.environment_id == environment_id, build_jobs.c.artifact_url != "")
        )
        reported = await db.execute(
            select(projects.c.id, vms.c.job, agent_events.c.body)
            .join(vms, vms.c.id == agent_events.c.vm_id)
            .join(projects, projects.c.id == vms.c.project_id)
            .where(vms.c.environment_id == environment_id, agent_events.c.kind == "result", vms.c.job != "")
        )
        found = {row.artifact_url.split("/", 1)[1] for row in recorded}
        for row in reported:
            if row.body.get("digest"):
                found.add(f"{row.id}/{environment_id}/{row.job}@{row.body['digest']}")
    return found


def _projects() -> Any:  # Any: a Select over columns has no short type.
    columns = (projects.c.id, projects.c.team_id, projects.c.slug, projects.c.repo_url, projects.c.repo_full_name)
    team = teams.c.slug.label("team_slug")
    return select(*columns, projects.c.provider, team).join(teams, teams.c.id == projects.c.team_id)


def _project(row: Any) -> ProjectRow:  # Any: a row of the Select above.
    return ProjectRow(row.id, row.team_id, row.team_slug, row.slug, row.repo_url, row.repo_full_name, row.provider)


def _of(project_id: str, pr: int) -> Any:  # Any: a SQL condition.
    e = environments.c
    return (e.project_id == project_id) & (e.pr_number == pr) & (e.status.not_in(_GONE))


async def _one(db: AsyncConnection, condition: Any) -> LifeRow | None:  # Any: a SQL condition.
    row = (await db.execute(select(environments).where(condition))).one_or_none()
    if row is None:
        return None
    found = (await db.execute(_projects().where(projects.c.id == row.project_id))).one()
    return LifeRow(
        id=row.id,
        project=_project(found),
        pr=row.pr_number,
        hash=row.subdomain_hash,
        state=EnvironmentState(row.status),
        message=row.message,
        sha=row.sha,
        run_id=row.run_id,
        since=row.status_since.timestamp(),
        labels=tuple(row.labels),
        exposes=tuple(row.exposes),
        failure=row.failure,
        expires_at=row.expires_at.timestamp() if row.expires_at else None,
        is_pinned=row.is_pinned,
        warning=row.warning,
    )


def _team_of(environment_id: str) -> Any:  # Any: a scalar subquery.
    return select(environments.c.team_id).where(environments.c.id == environment_id).scalar_subquery()
