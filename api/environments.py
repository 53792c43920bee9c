"""`/v1/api/environments`: what is running, since when, and why not."""

# No postponed annotations here: FastAPI reads them, and they name what is local to `router`.

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth import TeamOf
from api.schemas import BuildJob, Environment, Failure, Run, Service, Step, Vm
from api.services import Services
from stagely.db.queries import environments
from stagely.db.queries.environments import EnvironmentFilter, EnvironmentView, Json, RunView, StepView


def router(services: Services, team: TeamOf) -> APIRouter:
    routes = APIRouter(prefix="/v1/api/environments", tags=["environments"])
    Team = Annotated[str, Depends(team)]

    @routes.get("")
    async def index(
        team_id: Team, project: str = "", repo: str = "", pr: int | None = None, all: bool = False
    ) -> list[Environment]:
        """Living environments, newest first; with `all` those that ended too."""
        wanted = EnvironmentFilter(project, repo, pr, all)
        return [body_of(view) for view in await environments.list_environments(services.engine, team_id, wanted)]

    @routes.get("/{environment_id}")
    async def show(environment_id: str, team_id: Team) -> Environment:
        """One environment with its latest run."""
        return body_of(await environments.get_environment(services.engine, team_id, environment_id))

    @routes.get("/{environment_id}/vms")
    async def vms(environment_id: str, team_id: Team) -> list[Vm]:
        """The ledger: every VM that this environment ever had, oldest first."""
        await environments.get_environment(services.engine, team_id, environment_id)
        return [
            Vm(
                id=vm.id,
                role=vm.role,
                job=vm.job,
                state=vm.state,
                address=vm.address,
                created_at=vm.created_at.timestamp(),
            )
            for vm in await environments.list_vms(services.engine, environment_id)
        ]

    return routes


def body_of(view: EnvironmentView) -> Environment:
    """The environment as the api shows it."""
    urls = {str(exposed["service"]): str(exposed.get("url", "")) for exposed in view.exposes}
    return Environment(
        id=view.id,
        project_id=view.project.id,
        project=view.project.slug,
        repo=view.project.repo_full_name,
        pr=view.pr,
        title=view.title,
        state=view.state,
        message=view.message,
        commit=view.sha,
        since=view.since.timestamp(),
        created_at=view.created_at.timestamp(),
        urls=urls,
        services=[
            Service.model_validate({**service, "url": urls.get(service["name"], "")}) for service in view.services
        ],
        failure=Failure.model_validate(view.failure) if view.failure else None,
        run=_run(view, view.run) if view.run else None,
        steps=[_step(step) for step in view.steps],
        phases=phases(view.steps),
        comment_url=_comment_url(view),
        expires_at=view.expires_at.timestamp() if view.expires_at else None,
        is_pinned=view.is_pinned,
    )


def phases(steps: Sequence[StepView]) -> dict[str, float]:
    """Seconds by step name in the order in which they began; of parallel subjects the longest counts."""
    found: dict[str, float] = {}
    for step in steps:
        seconds = _seconds(step)
        if seconds is not None:
            found[step.name] = max(found.get(step.name, 0.0), seconds)
    return found


def _service(service: Json, urls: Mapping[str, str]) -> Service:
    return Service.model_validate({**service, "url": urls.get(service["name"], "")})


def _run(view: EnvironmentView, run: RunView) -> Run:
    jobs = [
        BuildJob(name=job.name, arch=job.arch, state=job.state, vm_id=job.vm_id, position=job.position)
        for job in view.jobs
    ]
    return Run(id=run.id, number=run.number, sha=run.sha, state=run.state, builds=jobs)


def _step(step: StepView) -> Step:
    return Step(
        run_id=step.run_id,
        name=step.name,
        subject=step.subject,
        state=step.state,
        started_at=step.started_at.timestamp(),
        seconds=_seconds(step),
        detail=step.detail,
    )


def _seconds(step: StepView) -> float | None:
    return None if step.ended_at is None else round((step.ended_at - step.started_at).total_seconds(), 3)


def _comment_url(view: EnvironmentView) -> str:
    if view.comment_id is None:
        return ""
    return f"{view.project.repo_url.removesuffix('.git')}/pull/{view.pr}#issuecomment-{view.comment_id}"
