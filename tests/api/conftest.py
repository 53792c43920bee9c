"""A gateway and an api in the test's own loop, on real sockets, over real Postgres, Valkey and Temporal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from api.clients import connect_redis
from api.gateway.server import Gateway
from api.gateway.sessions import Clock
from stagely import temporal
from stagely.db.engine import create_engine
from stagely.settings import Settings
from stagely.tokens import EnrolmentTokens
from tests.api.ledger import Ledger
from tests.api.wire import DEADLINE_S
from tests.api.world import KEY, WEBHOOK_SECRET, OpenGateway, Repositories, Running, run_api
from tests.encryption import KEY_FILE


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str, temporal_port: int) -> Settings:
    secret, key = tmp_path / "webhook-secret", tmp_path / "signing-key"
    secret.write_text(WEBHOOK_SECRET + "\n")
    key.write_text(KEY + "\n")
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": redis_url,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal_port}",
            "api_listen": "127.0.0.1:0",
            "gateway_listen": "127.0.0.1:0",
            "github_webhook_secret_file": secret,
            "signing_key_file": key,
            "encryption_key_file": KEY_FILE,
            "heartbeat_s": 5,
        }
    )


@pytest.fixture
async def ledger(engine: AsyncEngine, redis: Redis) -> Ledger:
    """A project with one environment, env-1 of pull request 7; Redis is empty."""
    made = Ledger(engine)
    await made.begin()
    return made


@pytest.fixture
def repositories() -> Repositories:
    return Repositories()


@pytest.fixture
def open_gateway(settings: Settings, repositories: Repositories) -> OpenGateway:
    """Starts a gateway; `async with open_gateway(heartbeat_s=1)` changes settings."""

    @asynccontextmanager
    async def start(clock: Clock = time.monotonic, **changes: object) -> AsyncIterator[Running]:
        used = settings.model_copy(update=changes)
        engine, redis, client = create_engine(used.database_url), connect_redis(used), await temporal.connect(used)
        gateway = Gateway(used, engine, redis, client, EnrolmentTokens(KEY), repositories, clock)
        async with asyncio.timeout(DEADLINE_S * 5), asyncio.TaskGroup() as group:
            running = group.create_task(gateway.run())
            await gateway.listening.wait()
            try:
                yield Running(gateway)
            finally:
                gateway.stop()
                await running
        await redis.aclose()
        await engine.dispose()

    return start


@pytest.fixture
async def gateway(open_gateway: OpenGateway, ledger: Ledger) -> AsyncIterator[Running]:
    async with open_gateway() as running:
        yield running


@pytest.fixture
async def web(settings: Settings, ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running api, without a token."""
    async with run_api(settings) as client:
        yield client
