"""Fixtures that every folder shares: real servers once per session, a fresh database and namespace of keys per test."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError

from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.dev.postgres import USER, ensure_database
from tests.encryption import CONVERTER
from tests.services import free_port, postgres_server, temporal_server, valkey_server

TEMPLATE = "template_stagely"
START_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def postgres_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as port:
        yield port


@pytest.fixture(scope="session")
async def template_database(postgres_port: int) -> int:
    """The port of a server that holds a migrated, empty template."""
    await ensure_database(postgres_port, TEMPLATE, START_TIMEOUT_S)
    await asyncio.to_thread(upgrade, _url(postgres_port, TEMPLATE))
    return postgres_port


@pytest.fixture
async def database_url(template_database: int) -> AsyncIterator[str]:
    """A migrated, empty database of the test's own."""
    name = f"t_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(_url(template_database, "postgres"))
    await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    yield _url(template_database, name)
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_engine(database_url)
    yield made
    await made.dispose()


@pytest.fixture(scope="session")
def valkey_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.fixture
def redis_url(valkey_port: int) -> str:
    return f"redis://127.0.0.1:{valkey_port}/0"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client on an emptied server."""
    client = Redis.from_url(redis_url)
    await _answering(client)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def temporal_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with temporal_server(tmp_path_factory.mktemp("temporal"), free_port()) as port:
        yield port


@pytest.fixture(scope="session")
async def temporal_client(temporal_port: int) -> Client:
    """A client of the session's dev server, once that answers."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                return await Client.connect(f"127.0.0.1:{temporal_port}", data_converter=CONVERTER)
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.1)


async def _answering(client: Redis) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                await client.ping()
                return
            except (OSError, RedisError):
                await asyncio.sleep(0.05)


def _url(port: int, name: str) -> str:
    return f"postgresql://{USER}@127.0.0.1:{port}/{name}"
