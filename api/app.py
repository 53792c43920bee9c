"""The api put together: routes over services. Stateless; any number of replicas."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from api import actions, archive, codec, environments, logs, problems, projects, webhooks
from api.auth import owner_of, team_of
from api.dispatch import Dispatcher
from api.services import Services

_DOCS = Path(__file__).with_name("docs.html")


def create_app(services: Services, dispatcher: Dispatcher) -> FastAPI:
    """The ASGI application. Its documentation page loads nothing from elsewhere."""
    app = FastAPI(title="Stagely", version="0.1.0", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    problems.install(app)
    team = team_of(services.engine)
    for router in (
        webhooks.router(services, dispatcher),
        projects.router(services, team),
        environments.router(services, team),
        actions.router(services, owner_of(services.engine)),
        logs.router(services, team),
        archive.router(services.settings),
    ):
        app.include_router(router)
    app.mount(codec.PATH, codec.create_app(services.settings, codec.codec_of(services.temporal), team))
    _add_pages(app)
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_DOCS.read_text())
