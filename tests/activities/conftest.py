"""One yard per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from tests.activities.yard import Cloud, Pulls, Yard


@pytest.fixture
async def yard(engine: AsyncEngine, redis: Redis, temporal_client: Client) -> AsyncIterator[Yard]:
    made = Yard(engine, redis, temporal_client, Cloud(), Pulls())
    await made.begin()
    yield made
    await made.end_all()
