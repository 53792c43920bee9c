"""The forge as one ASGI application."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from stagely.dev.forge import refusal
from stagely.dev.forge.config import ForgeConfig
from stagely.dev.forge.dev_routes import DevRoutes
from stagely.dev.forge.faults import Faults
from stagely.dev.forge.git import GitFailed
from stagely.dev.forge.pages import PageRoutes
from stagely.dev.forge.parts import Parts, make_parts
from stagely.dev.forge.rest_app import AppRoutes
from stagely.dev.forge.rest_contents import ContentRoutes
from stagely.dev.forge.rest_pulls import PullRoutes
from stagely.dev.forge.rest_talk import TalkRoutes
from stagely.dev.forge.smart_http import GitRoutes
from stagely.logs import get_logger

log = get_logger()


def create_app(config: ForgeConfig, now: Callable[[], float] = time.time) -> ASGIApp:
    """`now` gives Unix seconds: tests let tokens end by it. Opens the state folder at once."""
    parts = make_parts(config, now)
    app = Starlette(
        lifespan=_lifespan(parts),
        exception_handlers={
            refusal.Refused: refusal.answer,
            HTTPException: _no_route,
            GitFailed: _git_failed,
        },
    )
    faults = Faults(app, now)
    app.router.routes += [
        *DevRoutes(parts, faults.plan).routes(),
        *AppRoutes(parts).routes(),
        *TalkRoutes(parts).routes(),
        *ContentRoutes(parts).routes(),
        *PullRoutes(parts).routes(),
        *GitRoutes(parts).routes(),
        *PageRoutes(parts).routes(),
    ]
    return faults


def _lifespan(parts: Parts) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # A push that a killed forge took but never noticed.
        for repository in parts.store.repositories():
            await parts.pulls.look(repository)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send_or_stop(parts))
            yield
            sending.cancel()
        parts.store.close()

    return lifespan


async def _send_or_stop(parts: Parts) -> None:
    """A forge that serves but sends no webhooks would be worse than none: its supervisor starts a new one."""
    try:
        await parts.outbox.run()
    except Exception:
        log.exception("webhooks cannot be sent any more; the forge stops")
        signal.raise_signal(signal.SIGTERM)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await refusal.answer(request, refusal.Refused(error.status_code, str(error.detail)))


async def _git_failed(request: Request, error: Exception) -> Response:
    log.error("git failed", method=request.method, path=request.url.path, error=str(error))
    return await refusal.answer(request, refusal.Refused(500, str(error)))
