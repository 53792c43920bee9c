"""The production-like Temporal as real programs: schema twice, server with our settings, namespace twice, our runs.

The programs are those of the images, built from the module that deploy/temporal/server pins. That takes a minute where
setup has built the CLI, and several from nothing.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from stagely.dev.engines import LOOPBACK
from tests.deploy.stack import (
    FOLDER,
    PASSWORDS,
    environment_of,
    postgres_tool,
    postgres_with_contrib,
    program,
    script,
    server_ports,
    temporal,
)
from workflows import attributes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SERVER = ("temporal-server", "go.temporal.io/server/cmd/server")
SQL_TOOL = ("temporal-sql-tool", "go.temporal.io/server/cmd/tools/sql")
TEMPORAL_SCHEMA, VISIBILITY_SCHEMA = "1.19", "1.14"  # Of server 1.31.2; another server brings its own.
START_TIMEOUT_S = 60.0
NAMESPACE = "stagely"


@dataclass(frozen=True, slots=True)
class Database:
    """A server for Temporal's databases, and what schema.sh is told of it."""

    port: int
    password: str
    environment: dict[str, str]

    def named(self, name: str) -> Database:
        """The same with a pair of databases of its own."""
        own = {"DATABASE": name, "VISIBILITY_DATABASE": f"{name}_visibility"}
        return replace(self, environment={**self.environment, **own})

    async def made(self, name: str) -> Database:
        """The same, with the first of the two there and empty."""
        connection = await self.connect("postgres")
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        return self.named(name)

    async def connect(self, name: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=LOOPBACK, port=self.port, user="temporal", password=self.password, database=name
        )

    async def emptied(self, name: str) -> None:
        connection = await self.connect("postgres")
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()

    async def versions(self, *names: str) -> list[tuple[str, int]]:
        """Of each database: the schema's version, and how many updates its log has."""
        found = []
        for name in names:
            connection = await self.connect(name)
            row = await connection.fetchrow(
                "SELECT curr_version, (SELECT count(*) FROM schema_update_history) FROM schema_version"
            )
            await connection.close()
            assert row is not None
            found.append((row[0], row[1]))
        return found


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    password = PASSWORDS["TEMPORAL_POSTGRES_PASSWORD"]
    given = {"SQL_TOOL": program(*SQL_TOOL)}
    with postgres_with_contrib(tmp_path_factory.mktemp("postgres"), "temporal", password) as port:
        here = {"SQL_HOST": LOOPBACK, "SQL_PORT": str(port)}
        yield Database(port, password, {**environment_of("temporal-schema"), **given, **here})


@pytest.fixture(scope="module")
def schema(database: Database) -> Database:
    done = script("schema.sh", database.environment)
    assert done.returncode == 0, done.stderr
    return database


async def connected(address: str, namespace: str = NAMESPACE) -> Client:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                return await Client.connect(address, namespace=namespace)
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.2)


async def started(client: Client, workflow_id: str) -> None:
    """A run with every attribute of ours, on a queue that nobody serves."""
    values: dict[str, object] = {
        "StagelyProject": "prj-1",
        "StagelyRepo": "local/guestbook",
        "StagelyState": "building",
        "StagelyProvider": "local",
        "StagelyRole": "preview",
        "StagelyPr": 7,
        "StagelyExpiresAt": datetime(2030, 1, 1, tzinfo=UTC),
    }
    given = TypedSearchAttributes([SearchAttributePair(key, values[key.name]) for key in attributes.ALL])
    await client.start_workflow("Nobody", id=workflow_id, task_queue="nobody", search_attributes=given)


async def found_ids(client: Client, query: str) -> list[str]:
    return [run.id async for run in client.list_workflows(query)]


async def test_schema_job_may_run_again(schema: Database) -> None:
    before = await schema.versions("temporal", "temporal_visibility")

    again = script("schema.sh", schema.environment)

    assert again.returncode == 0, again.stderr
    assert again.stdout == "schema: temporal is up to date\nschema: temporal_visibility is up to date\n"
    assert await schema.versions("temporal", "temporal_visibility") == before
    assert [version for version, _ in before] == [TEMPORAL_SCHEMA, VISIBILITY_SCHEMA]


async def test_schema_job_killed_before_its_first_version_sets_up_again(database: Database) -> None:
    fresh = await database.made("fresh")
    connection = await database.connect("fresh")
    await connection.execute(
        "CREATE TABLE schema_version (version_partition INT NOT NULL, db_name VARCHAR(255) NOT NULL,"
        " creation_time TIMESTAMP, curr_version VARCHAR(64), min_compatible_version VARCHAR(64),"
        " PRIMARY KEY (version_partition, db_name))"
    )
    await connection.close()

    done = script("schema.sh", fresh.environment)

    assert done.returncode == 0, done.stderr
    assert [version for version, _ in await fresh.versions("fresh")] == [TEMPORAL_SCHEMA]


async def test_schema_job_killed_between_two_versions_goes_on(database: Database) -> None:
    half = database.named("half")
    made = script("schema.sh", half.environment)
    connection = await database.connect("half")
    await connection.execute("UPDATE schema_version SET curr_version = '1.17'")
    await connection.close()

    again = script("schema.sh", half.environment)

    assert (made.returncode, again.returncode) == (0, 0), again.stderr
    assert [version for version, _ in await half.versions("half")] == [TEMPORAL_SCHEMA]


async def test_schema_job_sets_nothing_up_over_what_it_cannot_read(database: Database) -> None:
    odd = await database.made("odd")
    connection = await database.connect("odd")
    await connection.execute("CREATE TABLE schema_version (something_else INT)")

    done = script("schema.sh", odd.environment)

    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert done.returncode == 1
    assert "schema: database odd could not be updated" in done.stderr
    assert [table["tablename"] for table in tables] == ["schema_version"]


def test_wrong_password_ends_the_schema_job_with_its_reason(database: Database) -> None:
    done = script("schema.sh", {**database.environment, "SQL_PASSWORD": "wrong", "SCHEMA_ATTEMPTS": "1"})

    assert done.returncode == 1
    assert f"schema: database temporal could not be made on {LOOPBACK}:{database.port} after 1 tries" in done.stderr
    assert "password authentication failed" in done.stderr


def test_dynamic_config_has_keys_that_this_server_knows() -> None:
    file = str(FOLDER / "config" / "dynamic-config.yaml")

    done = subprocess.run(
        [program(*SERVER), "validate-dynamic-config", file], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (0, f"{file}\n")


async def test_server_takes_our_runs_and_has_them_after_a_restart(schema: Database, tmp_path: Path) -> None:
    ports, server = server_ports(), program(*SERVER)
    with temporal(server, tmp_path, schema.port, ports) as address:
        settings = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": NAMESPACE, "NAMESPACE_ATTEMPTS": "30"}
        first = await asyncio.to_thread(script, "namespace.sh", settings)
        second = await asyncio.to_thread(script, "namespace.sh", settings)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        client = await connected(address)
        await started(client, "env/prj-1/pr/7")
        with pytest.raises(RPCError, match="WorkflowId length exceeds limit"):
            await client.start_workflow("Nobody", id="p" * 256, task_queue="nobody")
    with temporal(server, tmp_path, schema.port, ports) as address:
        again = await connected(address)
        description = await again.get_workflow_handle("env/prj-1/pr/7").describe()
        query = "StagelyRepo = 'local/guestbook' AND StagelyPr = 7 AND StagelyExpiresAt > '2029-01-01T00:00:00Z'"
        ids = await found_ids(again, query)

    assert description.status is WorkflowExecutionStatus.RUNNING
    assert ids == ["env/prj-1/pr/7"]
    assert await shards(schema) == 512


async def test_restored_backup_has_the_run(schema: Database, tmp_path: Path) -> None:
    ports, server = server_ports(), program(*SERVER)
    with temporal(server, tmp_path, schema.port, ports) as address:
        settings = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": NAMESPACE, "NAMESPACE_ATTEMPTS": "30"}
        job = await asyncio.to_thread(script, "namespace.sh", settings)
        assert job.returncode == 0, job.stderr
        await started(await connected(address), "env/prj-1/pr/8")
    for name in ("temporal", "temporal_visibility"):
        dump = str(tmp_path / name)
        postgres_tool("pg_dump", schema.port, schema.password, "-Fc", "-f", dump, name)
        await schema.emptied(name)
        # The same name: the table of versions names the database, and the server refuses a copy under another one.
        postgres_tool("pg_restore", schema.port, schema.password, "--exit-on-error", "-d", name, dump)
    with temporal(server, tmp_path, schema.port, ports) as address:
        client = await connected(address)
        description = await client.get_workflow_handle("env/prj-1/pr/8").describe()
        ids = await found_ids(client, "WorkflowId = 'env/prj-1/pr/8'")

    assert description.status is WorkflowExecutionStatus.RUNNING
    assert ids == ["env/prj-1/pr/8"]


async def shards(database: Database) -> int:
    """How many shards the server has taken in the database: one row each."""
    connection = await database.connect("temporal")
    count = await connection.fetchval("SELECT count(*) FROM shards")
    await connection.close()
    assert isinstance(count, int)
    return count
