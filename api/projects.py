"""`/v1/api/projects`: repositories that get environments."""

# No postponed annotations here: FastAPI reads them, and they name what is local to `router`.

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Response

from api.auth import TeamOf
from api.schemas import Project, ProjectCreate
from api.services import Services
from stagely.db.queries import environments
from stagely.db.queries.environments import ProjectView
from stagely.errors import SpecInvalid


def router(services: Services, team: TeamOf) -> APIRouter:
    routes = APIRouter(prefix="/v1/api/projects", tags=["projects"])

    @routes.post("", status_code=201, responses={200: {"description": "The repository has a project already"}})
    async def create(body: ProjectCreate, response: Response, team_id: Annotated[str, Depends(team)]) -> Project:
        """Make a project for a repository; the same repository again answers the one that is there."""
        _check_url(body.repo_url)
        project, is_new = await environments.create_project(
            services.engine, team_id, body.slug, body.repo_url, body.repo_full_name, services.settings.provider
        )
        response.status_code = 201 if is_new else 200
        return _body(project)

    @routes.get("")
    async def index(team_id: Annotated[str, Depends(team)]) -> list[Project]:
        """The team's projects by name."""
        return [_body(project) for project in await environments.list_projects(services.engine, team_id)]

    return routes


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecInvalid(f"repo_url must be an http or https address, got {url[:200]!r}")
    if parts.username or parts.password:
        raise SpecInvalid("repo_url must not hold a password; tokens are minted for each clone")


def _body(project: ProjectView) -> Project:
    return Project(id=project.id, slug=project.slug, repo_url=project.repo_url, repo_full_name=project.repo_full_name)
