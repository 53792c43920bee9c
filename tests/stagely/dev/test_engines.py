"""The engines as real children: they start, keep their data over stop and kill -9, and stop cleanly."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from stagely.dev import engines, postgres
from stagely.dev.child import Child
from stagely.dev.console import Console
from stagely.dev.ports import Ports, taken
from stagely.dev.setup_record import cache_folder
from stagely.dev.supervisor import Supervisor

TEMPORAL = cache_folder() / "bin" / "temporal"
REGISTRY = Path("/usr/bin/docker-registry")


@pytest.fixture
def ports() -> Ports:
    """Ports that nobody has at the moment."""
    bases: Iterator[int] = iter(random.Random(os.getpid()).sample(range(20000, 30000, 100), 50))
    return next(found for found in map(Ports.of, bases) if taken(found, found.named()) is None)


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(tmp_path, Console(io.StringIO()))


async def kill_and_wait_ready(child: Child) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await child.wait_started(2)
    await child.wait_ready()


async def test_postgres_keeps_its_data_when_it_is_killed(tmp_path: Path, ports: Ports, supervisor: Supervisor) -> None:
    folder = tmp_path / "postgres"
    postgres.initialise(folder)
    url = f"postgresql://stagely@127.0.0.1:{ports.postgres}/stagely"

    async with supervisor.running():
        child = await supervisor.start(engines.postgres_spec(folder, ports))
        await postgres.ensure_database(ports.postgres, "stagely", 30)
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await kill_and_wait_ready(child)
        await postgres.ensure_database(ports.postgres, "stagely", 30)
        connection = await asyncpg.connect(url)
        answer = await connection.fetchval("SELECT answer FROM kept")
        await connection.close()

    assert answer == 42
    assert child.starts == 2
    assert "database system is shut down" in child.log.read_text()


async def test_valkey_keeps_its_data_over_a_stop(tmp_path: Path, ports: Ports) -> None:
    for _ in range(2):
        supervisor = Supervisor(tmp_path, Console(io.StringIO()))
        async with supervisor.running():
            await supervisor.start(engines.valkey_spec(tmp_path / "valkey", ports))
            async with Redis(port=ports.valkey, decode_responses=True) as redis:
                visits = await redis.incr("visits")

    assert visits == 2


@pytest.mark.skipif(not TEMPORAL.exists(), reason="make setup has not built Temporal's CLI")
async def test_temporal_is_ready_when_its_namespace_is_there(
    tmp_path: Path, ports: Ports, supervisor: Supervisor
) -> None:
    database = tmp_path / "temporal.db"

    async with supervisor.running():
        child = await supervisor.start(engines.temporal_spec(TEMPORAL, database, ports, "path-token"))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.temporal_ui}", timeout=5) as client:
            answer = await client.get("/api/v1/namespaces/default")
            settings = await client.get("/api/v1/settings")

    assert answer.json()["namespaceInfo"]["name"] == "default"
    assert settings.json()["Codec"]["Endpoint"] == f"http://127.0.0.1:{ports.api}/v1/codec/path-token"
    assert database.exists()
    assert child.starts == 1


@pytest.mark.skipif(not REGISTRY.exists(), reason="make setup has not installed the registry")
async def test_store_takes_blobs_and_mirror_refuses_them(tmp_path: Path, ports: Ports, supervisor: Supervisor) -> None:
    store, mirror = tmp_path / "registry" / "config.yml", tmp_path / "mirror" / "config.yml"
    engines.write_registry_config(store, engines.store_config(tmp_path / "s", "127.0.0.1", ports.registry, "secret"))
    engines.write_registry_config(mirror, engines.mirror_config(tmp_path / "m", "127.0.0.1", ports.mirror, ""))

    async with supervisor.running():
        await supervisor.start(engines.registry_spec("registry", REGISTRY, store, "127.0.0.1", ports.registry))
        await supervisor.start(engines.registry_spec("mirror", REGISTRY, mirror, "127.0.0.1", ports.mirror))
        async with httpx.AsyncClient(timeout=5) as client:
            taken_by_store = await client.post(f"http://127.0.0.1:{ports.registry}/v2/p/e/web/blobs/uploads/")
            taken_by_mirror = await client.post(f"http://127.0.0.1:{ports.mirror}/v2/p/e/web/blobs/uploads/")

    assert taken_by_store.status_code == 202
    assert taken_by_mirror.status_code == 405
