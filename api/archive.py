"""`/v1/agent/archive`: the agent's one file, which new VMs download and check by its SHA-256."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from stagely import agent_archive
from stagely.errors import NotFound
from stagely.settings import Settings


class Archive(BaseModel):
    sha256: str
    url: str


def router(settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/v1/agent/archive", tags=["agent"])

    @routes.get("")
    async def newest() -> Archive:
        """Which file new VMs get."""
        built = await asyncio.to_thread(agent_archive.archive)
        url = f"{settings.core_url.rstrip('/')}/v1/agent/archive/{built.sha256}/{agent_archive.NAME}"
        return Archive(sha256=built.sha256, url=url)

    @routes.get(f"/{{sha256}}/{agent_archive.NAME}", response_class=Response)
    async def download(sha256: str) -> Response:
        """The file itself; the address names its content, so it never changes."""
        built = await asyncio.to_thread(agent_archive.archive)
        if sha256 != built.sha256:
            raise NotFound(f"this api serves the agent {built.sha256[:12]}…, not {sha256[:12]}…")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(built.content, media_type="application/zip", headers=headers)

    return routes
