"""`stagely dev` beside somebody else's Temporal, Postgres and Valkey: it uses them, starts none, and leaves them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from temporalio.client import Client

from stagely.dev.postgres import USER, ensure_database
from tests.services import free_port, postgres_server, temporal_server, valkey_server
from tests.stagely.dev.test_run import TIMEOUT_S, dev, until

OWN = ["api", "api.gateway", "docker-registry", "docker-registry", "edge", "stagely.dev.forge", "worker.py"]


@pytest.fixture
def given(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The addresses of running servers."""
    for name in ("valkey", "temporal"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server(tmp_path / "postgres"))
        valkey = stack.enter_context(valkey_server(tmp_path / "valkey"))
        temporal = stack.enter_context(temporal_server(tmp_path / "temporal"))
        yield {
            "STAGELY_DATABASE_URL": f"postgresql://{USER}@127.0.0.1:{postgres}/elsewhere",
            "STAGELY_REDIS_URL": f"redis://127.0.0.1:{valkey}/0",
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal}",
        }


def children(pid: int) -> dict[int, list[str]]:
    """The command line of every child process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in found}


def variables(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/environ").read_text().split("\0"))


def called(command: list[str]) -> str:
    """`python -m NAME`, `python FILE` and `PROGRAM` by their names."""
    word = command[2] if command[1] == "-m" else command[1] if command[1].endswith(".py") else command[0]
    return Path(word).name


@pytest.mark.docker
async def test_parts_whose_address_is_given_are_used_and_not_started(tmp_path: Path, given: dict[str, str]) -> None:
    state, base = tmp_path / "state", 20000 + free_port() % 100 * 100
    await ensure_database(int(given["STAGELY_DATABASE_URL"].split(":")[2].split("/")[0]), "elsewhere", TIMEOUT_S)

    with dev(state, base, **given) as process:
        await asyncio.to_thread(until, lambda: (state / "dev.json").exists() or process.poll() is not None)
        assert process.poll() is None
        running = children(process.pid)
        [worker] = [pid for pid, command in running.items() if called(command) == "worker.py"]
        told = variables(worker)
        process.send_signal(signal.SIGTERM)
        said, _ = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)

    assert process.returncode == 0, said
    assert sorted(map(called, running.values())) == OWN
    assert {f"{name}={value}" for name, value in given.items()} <= told
    assert {name for name in ("postgres", "valkey", "temporal.db") if (state / name).exists()} == set()
    await assert_used_and_still_there(given)


async def assert_used_and_still_there(given: dict[str, str]) -> None:
    """Migrated by us, holding our schedule, and answering after we left."""
    connection = await asyncpg.connect(given["STAGELY_DATABASE_URL"])
    version = await connection.fetchval("SELECT version_num FROM alembic_version")
    await connection.close()
    client = await Client.connect(given["TEMPORAL_ADDRESS"])
    schedules = [schedule.id async for schedule in await client.list_schedules()]
    async with Redis.from_url(given["STAGELY_REDIS_URL"]) as redis:
        pong = await redis.ping()
    assert version
    assert len(schedules) == 1
    assert pong
