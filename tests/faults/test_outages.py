"""Parts that are away for a while, and a cloud that does what it was asked and does not say so."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError

from providers.base import Provider, Vm, VmOrder
from providers.errors import ProviderUnavailable, VmRejected
from tests.encryption import CONVERTER
from tests.faults.stage import FAILED, NO_BUILDS, Stage, stage
from tests.services import free_port, temporal_server
from tests.valkey import Valkey
from tests.workflows import world
from tests.workflows.world import POLL_S, Cloud

AWAY_S = 3.0
LAG_S = 2.0  # Stands for a minute: longer than a life's create and destroy here, shorter than a sweep's minimum age.
LIVES = 4
REFUSED_S = 5.0  # A refusal is known at once.


# --- clouds ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ForgetfulCloud(Cloud):
    """Makes every VM that it is asked for, and answers 500 the first time."""

    answered_500: set[str] = field(default_factory=set)

    async def create(self, order: VmOrder) -> Vm:
        made = await Cloud.create(self, order)
        if order.vm_id not in self.answered_500:
            self.answered_500.add(order.vm_id)
            raise ProviderUnavailable(f"local: create {order.vm_id}: 500 internal_error")
        return made


@dataclass(slots=True)
class LaggingCloud(ForgetfulCloud):
    """Its lists know nothing of a VM until `lag_s` after it was made, so it is neither found nor destroyed before."""

    lag_s: float = LAG_S

    async def find(self, vm_id: str) -> Vm | None:
        return self.alive.get(vm_id) if self._is_listed(vm_id) else None

    async def destroy(self, vm_id: str) -> None:
        if self._is_listed(vm_id):
            await Cloud.destroy(self, vm_id)

    async def list_owned(self) -> Sequence[Vm]:
        return [vm for vm_id, vm in self.alive.items() if self._is_listed(vm_id)]

    def _is_listed(self, vm_id: str) -> bool:
        return vm_id in self.alive and time.time() - self.alive[vm_id].created_at > self.lag_s


@pytest.fixture
async def forgetful(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[Stage]:
    async with stage(temporal_client, engine, redis, ForgetfulCloud()) as made:
        yield made


@pytest.fixture
async def lagging(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[Stage]:
    async with stage(temporal_client, engine, redis, LaggingCloud()) as made:
        yield made


async def closed(here: Stage, pr: int = 1) -> None:
    here.github.close(pr)
    await here.world.webhook(pr, "closed")
    await here.until_gone(pr)


async def test_cloud_that_answers_500_after_creating_gives_one_machine_per_order(forgetful: Stage) -> None:
    sha = forgetful.github.push(1)
    await forgetful.world.webhook(1, "opened")

    await forgetful.until_ready(1, sha)

    assert len(made_by(forgetful)) == 3
    await closed(forgetful)


async def test_pull_request_closed_while_the_cloud_answers_500_leaves_no_machine(forgetful: Stage) -> None:
    forgetful.github.push(1)
    await forgetful.world.webhook(1, "opened")
    await forgetful.world.until_true(lambda: len(made_by(forgetful)) == 3)

    await closed(forgetful)

    assert forgetful.world.cloud.alive == {}


async def test_machine_that_no_list_shows_yet_becomes_a_preview_and_is_gone_in_the_end(lagging: Stage) -> None:
    sha = lagging.github.push(1, NO_BUILDS)
    await lagging.world.webhook(1, "opened")

    await lagging.until_ready(1, sha)

    assert len(made_by(lagging)) == 1
    await asyncio.sleep(LAG_S)
    await closed(lagging)


async def test_machine_that_was_not_listed_when_it_was_destroyed_is_found_by_sweeps(lagging: Stage) -> None:
    lagging.github.push(1, NO_BUILDS)
    await lagging.world.webhook(1, "opened")
    await lagging.world.until_true(lambda: len(made_by(lagging)) == 1)
    lagging.github.close(1)
    await lagging.world.webhook(1, "closed")
    await lagging.world.handle(1).result()
    await asyncio.sleep(LAG_S)

    await lagging.sweep()
    await lagging.sweep()

    await lagging.until_gone(1)
    assert lagging.world.cloud.alive == {}


def made_by(here: Stage) -> set[str]:
    return {line.removeprefix("create ") for line in here.world.cloud.journal if line.startswith("create ")}


async def test_preview_without_builds_that_no_cloud_may_be_asked_for_fails_and_says_so(
    monkeypatch: pytest.MonkeyPatch, temporal_client: Client, engine: AsyncEngine, redis: Redis
) -> None:
    real = world.adapters
    monkeypatch.setattr(world, "adapters", lambda made, registry: replace(real(made, registry), provider_of=unknown))
    async with stage(temporal_client, engine, redis) as here:
        here.github.push(1, NO_BUILDS)
        await here.world.webhook(1, "opened")

        async with asyncio.timeout(REFUSED_S):
            life = await here.world.until(1, FAILED)

        assert life.failure is not None
        assert "no provider" in life.failure["message"]


def unknown(name: str) -> Provider:
    raise VmRejected(f"there is no provider {name!r}")


# --- Postgres and Redis ---------------------------------------------------------------------------------------------


async def test_life_goes_on_after_postgres_was_away_for_seconds(here: Stage, database_url: str) -> None:
    here.github.push(1)
    await here.world.webhook(1, "opened")
    await here.world.until_vm(lambda row: row.state == "running")

    async with postgres_away(database_url):
        sha = here.github.push(1)
        await here.world.webhook(1)
        await asyncio.sleep(AWAY_S)

    await here.until_ready(1, sha)
    await closed(here)


async def test_pull_request_closed_while_postgres_was_away_leaves_nothing(here: Stage, database_url: str) -> None:
    sha = here.github.push(1)
    await here.world.webhook(1, "opened")
    await here.until_ready(1, sha)

    async with postgres_away(database_url):
        here.github.close(1)
        await here.world.webhook(1, "closed")
        await asyncio.sleep(AWAY_S)

    await here.until_gone(1)


async def test_life_goes_on_after_redis_was_away_for_seconds(
    temporal_client: Client, engine: AsyncEngine, tmp_path: Path
) -> None:
    valkey = Valkey(tmp_path, free_port())
    await valkey.start()
    client = Redis.from_url(valkey.url)
    async with stage(temporal_client, engine, client) as here:
        here.github.push(1)
        await here.world.webhook(1, "opened")
        await here.world.until_vm(lambda row: row.state == "running")
        valkey.kill()
        sha = here.github.push(1)
        await here.world.webhook(1)
        await asyncio.sleep(AWAY_S)
        await valkey.start()

        await here.until_ready(1, sha)

        valkey.kill()
        here.github.close(1)
        await here.world.webhook(1, "closed")
        await asyncio.sleep(AWAY_S)
        await valkey.start()
        await here.until_gone(1)
    await client.aclose()
    valkey.kill()


@asynccontextmanager
async def postgres_away(database_url: str) -> AsyncIterator[None]:
    """Nobody is let into this database, and who is in is thrown out."""
    server, _, name = database_url.rpartition("/")
    operator = await asyncpg.connect(f"{server}/postgres")
    await operator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await operator.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    try:
        yield
    finally:
        await operator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await operator.close()


# --- Temporal -------------------------------------------------------------------------------------------------------


async def test_lives_go_on_after_the_temporal_server_was_killed_and_came_back(
    engine: AsyncEngine, redis: Redis, tmp_path: Path
) -> None:
    port, database = free_port(), tmp_path / "temporal.db"
    with ExitStack() as servers:
        servers.enter_context(temporal_server(tmp_path, port, database))
        async with stage(await connected(port), engine, redis) as here:
            shas = {pr: here.github.push(pr) for pr in range(1, LIVES + 1)}
            for pr in shas:
                await here.world.webhook(pr, "opened")
            await here.world.until_true(lambda: len(here.world.cloud.alive) >= LIVES)
            await kill_and_restart(servers, tmp_path, port, database)
            for pr, sha in shas.items():
                await here.until_ready(pr, sha)

            for pr in shas:
                here.github.close(pr)
                await here.world.webhook(pr, "closed")
            await here.world.until_true(lambda: len(here.world.cloud.alive) < LIVES)
            await kill_and_restart(servers, tmp_path, port, database)
            for pr in shas:
                await here.until_gone(pr)
            assert here.world.cloud.alive == {}


async def kill_and_restart(servers: ExitStack, folder: Path, port: int, database: Path) -> None:
    """kill -9, and the same server on the same file after AWAY_S."""
    os.kill(process_with("--port", str(port)), signal.SIGKILL)
    await asyncio.sleep(AWAY_S)
    servers.enter_context(temporal_server(folder, port, database))


def process_with(*arguments: str) -> int:
    """The process that was started with these arguments in a row."""
    wanted = b"\0" + b"\0".join(argument.encode() for argument in arguments) + b"\0"
    for folder in Path("/proc").glob("[0-9]*"):
        if wanted in command_line(folder):
            return int(folder.name)
    raise LookupError(f"no process was started with {arguments}")


def command_line(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""  # It has ended meanwhile.


async def connected(port: int) -> Client:
    async with asyncio.timeout(60):
        while True:
            try:
                return await Client.connect(f"127.0.0.1:{port}", data_converter=CONVERTER)
            except (RPCError, RuntimeError):
                await asyncio.sleep(POLL_S)
