"""The stage of one round: its own Temporal server, database and worker process, all gone with the round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError

from bench.lifecycle import bare_worker
from bench.lifecycle.link import WorkerFailed, worker_process
from bench.lifecycle.place import PROJECT, REPO, Place
from bench.lifecycle.rounds import RUNNING, Crowd, Observed, Round
from bench.lifecycle.servers import Server, Stores, temporal_server
from bench.lifecycle.targets import Bare, Stagely, Target
from stagely import temporal
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.db.models import utc_now
from stagely.db.tables import projects
from stagely.dev.postgres import USER, ensure_database

START_TIMEOUT_S = 60.0
LOOK_S = 0.1
TARGETS = ("bare", "stagely")
FAILURES = (WorkerFailed, TimeoutError, RPCError)


async def play(name: str, crowd: Crowd, stores: Stores, folder: Path) -> Observed:
    """One round of target `name` in an empty `folder`. A worker or server that fails is what is missing."""
    try:
        return await _play(name, crowd, stores, folder)
    except FAILURES as error:
        return _failed(error)
    except BaseExceptionGroup as group:
        failed, others = group.split(FAILURES)
        if failed is None or others is not None:
            raise
        return _failed(_first(failed))


async def _play(name: str, crowd: Crowd, stores: Stores, folder: Path) -> Observed:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(temporal_server(folder))
        place = _place(folder, stores, server)
        client = await _connected(name, place)
        if name == "bare":
            link = await stack.enter_async_context(worker_process(name, place))
            target: Target = Bare(client, link)
        else:
            engine, redis = await stack.enter_async_context(_emptied(place, stores))
            link = await stack.enter_async_context(worker_process(name, place))
            target = Stagely(client, engine, redis)
        return await Round(crowd, target, client, link, server, stores.postgres).run()


def _place(folder: Path, stores: Stores, server: Server) -> Place:
    database = "round_" + "".join(c if c.isalnum() else "_" for c in folder.name)
    url = f"postgresql://{USER}@127.0.0.1:{stores.postgres.port}/{database}"
    redis_url = f"redis://127.0.0.1:{stores.valkey_port}/0"
    return Place(str(folder), f"127.0.0.1:{server.port}", url, redis_url)


async def _connected(name: str, place: Place) -> Client:
    """A client of the target's own kind, once the server answers searches."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                if name == "bare":
                    client = await bare_worker.connect(place)
                else:
                    client = await temporal.connect(place.settings(), lazy=False)
                await client.count_workflows(RUNNING)
                return client
            except (RPCError, RuntimeError):
                await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _emptied(place: Place, stores: Stores) -> AsyncIterator[tuple[AsyncEngine, Redis]]:
    """A migrated database with one project, and a Valkey without keys."""
    await ensure_database(stores.postgres.port, place.database_url.rpartition("/")[2], START_TIMEOUT_S)
    await asyncio.to_thread(upgrade, place.database_url)
    engine = create_engine(place.database_url)
    redis: Redis = Redis.from_url(place.redis_url)
    try:
        await redis.flushall()
        await ensure_local_team(engine, "token")
        async with engine.begin() as connection:
            await connection.execute(
                insert(projects).values(
                    id=PROJECT, team_id=LOCAL_TEAM, slug="app", repo_url="http://forge/bench/app.git",
                    repo_full_name=REPO, installation_id=1, provider="local", created_at=utc_now(),
                )
            )  # fmt: skip
        yield engine, redis
    finally:
        await redis.aclose()
        await engine.dispose()


def _failed(error: BaseException) -> Observed:
    return Observed(missing=(f"{type(error).__name__}: {error}",))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
