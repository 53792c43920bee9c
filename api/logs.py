"""`/v1/api/environments/{id}/logs`: log lines as NDJSON, from any point on, and live."""

# No postponed annotations here: FastAPI reads them, and they name what is local to `router`.

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from api.auth import TeamOf
from api.clients import REDIS_ERRORS
from api.schemas import LogLine
from api.services import Services
from stagely.db.queries import environments
from stagely.db.queries.environments import LOG_PAGE, LogFilter, LogView

LOG_CHANNEL = "logs:{}"  # A nudge by the gateway; the rows are in Postgres.
POLL_S = 1.0  # How late a line is when the nudge was lost, and how soon an ended environment ends the stream.
MEDIA_TYPE = "application/x-ndjson"


def router(services: Services, team: TeamOf) -> APIRouter:
    routes = APIRouter(prefix="/v1/api/environments", tags=["environments"])

    @routes.get("/{environment_id}/logs", response_class=StreamingResponse)
    async def logs(
        environment_id: str,
        team_id: Annotated[str, Depends(team)],
        after: int = 0,
        run: str = "",
        stream: str = "",
        follow: bool = False,
    ) -> StreamingResponse:
        """Chunks of log lines with an id above `after`, one JSON object per line; `follow` stays until the end."""
        await environments.get_environment(services.engine, team_id, environment_id)
        wanted = LogFilter(environment_id, after, run, stream)
        lines = _follow(services, wanted) if follow else _read_all(services, wanted)
        return StreamingResponse(lines, media_type=MEDIA_TYPE)

    return routes


async def _read_all(services: Services, wanted: LogFilter) -> AsyncIterator[bytes]:
    while True:
        page = await environments.read_logs(services.engine, wanted)
        for chunk in page:
            yield _line(chunk)
        if len(page) < LOG_PAGE:
            return
        wanted = replace(wanted, after=page[-1].id)


async def _follow(services: Services, wanted: LogFilter) -> AsyncIterator[bytes]:
    """Until the environment is gone and everything about it was read, or the reader leaves."""
    async with _nudges(services.redis, wanted.environment_id) as channel:
        while True:
            # Asked before reading: what was written until then is in the page below.
            is_gone = await environments.is_gone(services.engine, wanted.environment_id)
            page = await environments.read_logs(services.engine, wanted)
            for chunk in page:
                yield _line(chunk)
            if page:
                wanted = replace(wanted, after=page[-1].id)
            elif is_gone:
                return
            else:
                await _wait(channel)


@asynccontextmanager
async def _nudges(redis: Redis, environment_id: str) -> AsyncIterator[PubSub | None]:
    """A subscription, or None while Redis is away: then polling does alone."""
    channel = redis.pubsub()
    try:
        try:
            await channel.subscribe(LOG_CHANNEL.format(environment_id))
        except REDIS_ERRORS:
            yield None
        else:
            yield channel
    finally:
        await channel.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves this one method untyped.


async def _wait(channel: PubSub | None) -> None:
    if channel is None:
        await asyncio.sleep(POLL_S)
        return
    try:
        await channel.get_message(ignore_subscribe_messages=True, timeout=POLL_S)
    except REDIS_ERRORS:
        await asyncio.sleep(POLL_S)


def _line(chunk: LogView) -> bytes:
    body = LogLine(
        id=chunk.id,
        run_id=chunk.run_id,
        stream=chunk.stream,
        at=chunk.at.timestamp(),
        data=chunk.data.decode("utf-8", "replace"),
    )
    return body.model_dump_json().encode() + b"\n"
