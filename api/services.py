"""What the api's routes work with, opened once and closed with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.clients import connect_redis
from stagely import temporal
from stagely.db.engine import create_engine
from stagely.settings import Settings

RETRY_FOR_S = 3.0  # Shorter than CALL_TIMEOUT_S: a call that ends for that says nothing of why.


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    engine: AsyncEngine
    redis: Redis
    temporal: Client
    webhook_secret: str = field(repr=False)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Nothing connects yet: the api starts while any of them is away. Raises RuntimeError for a missing secret file."""
    engine = create_engine(settings.database_url)
    redis = connect_redis(settings)
    secret = settings.secret(settings.github_webhook_secret_file, "github_webhook_secret_file")
    try:
        yield Services(settings, engine, redis, await temporal.connect(settings, retry_for_s=RETRY_FOR_S), secret)
    finally:
        await redis.aclose()
        await engine.dispose()
