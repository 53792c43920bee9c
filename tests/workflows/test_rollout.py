"""Deploys of Stagely: a run moves from build to build, and the replay gate says which runs a build would break."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Replayer, Worker

from stagely.rehearsal import Broken, Rehearsal, rehearse
from stagely.rollout import BuildNotSeen, current_build, deployment_config, make_current
from stagely.states import VmRole
from stagely.temporal import replay_converter
from tests.encryption import KEY_FILE
from tests.namespaces import fresh_namespace
from tests.workflows.builds import First, Incompatible, Other, Second
from workflows.messages import WORKFLOW_QUEUE, VmLeaseInput

ROOT = Path(__file__).parents[2]
QUEUE = "rollouts"
RUNNING = "ExecutionStatus = 'Running'"
DEADLINE_S = 30.0
LEASE = VmLeaseInput("1", VmRole.PREVIEW, "prj", "env", "env/prj/pr/1", "local", 60.0)


@pytest.fixture
async def client(temporal_client: Client) -> Client:
    return await fresh_namespace(temporal_client)


def worker(client: Client, kind: type, build_id: str = "") -> Worker:
    config = deployment_config(build_id)
    return Worker(client, task_queue=QUEUE, workflows=[kind], deployment_config=config, max_cached_workflows=0)


async def waiting(client: Client, *ids: str) -> None:
    """Runs that have begun and are listed; their worker is gone again."""
    async with worker(client, First):
        for one in ids:
            handle = await client.start_workflow("Rollout", id=one, task_queue=QUEUE)
            assert await handle.query("is_waiting", result_type=bool)
        await listed(client, len(ids))


async def listed(client: Client, number: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.count_workflows(RUNNING)).count < number:  # noqa: ASYNC110  # The server's list lags.
            await asyncio.sleep(0.05)


async def build_of(handle: WorkflowHandle[object, object]) -> str:
    found = (await handle.describe()).raw_description.workflow_execution_info.versioning_info
    return found.deployment_version.build_id


async def rehearsed(client: Client, kind: type, limit: int | None = None) -> Rehearsal:
    reported: list[Broken] = []
    replayer = Replayer(workflows=[kind], data_converter=replay_converter(client))
    done = await rehearse(client, replayer, RUNNING, limit, reported.append)
    assert reported == done.broken
    return done


async def test_a_run_moves_to_the_next_build_once_that_is_current(client: Client) -> None:
    handle = await client.start_workflow("Rollout", id="moves", task_queue=QUEUE)

    async with asyncio.timeout(DEADLINE_S), worker(client, First, "v1"):
        before_first = await make_current(client, "v1")
        assert await handle.query("is_waiting", result_type=bool)
        build_at_first = await build_of(handle)
        async with worker(client, Second, "v2"):
            before_second = await make_current(client, "v2")
            await handle.signal("end")
            result = await handle.result()

    assert (before_first, before_second) == ("", "v1")
    assert (build_at_first, await build_of(handle)) == ("v1", "v2")
    assert result == "second"


async def test_making_a_build_current_twice_changes_nothing(client: Client) -> None:
    async with worker(client, First, "v1"):
        await make_current(client, "v1")
        again = await make_current(client, "v1")

    assert again == "v1"
    assert await current_build(client) == "v1"


async def test_a_build_without_workers_is_not_made_current(client: Client) -> None:
    async with worker(client, First, "v1"):
        await make_current(client, "v1")
        with pytest.raises(BuildNotSeen, match="Start workers with STAGELY_BUILD_ID=v9 first"):
            await make_current(client, "v9", timeout_s=1)

    assert await current_build(client) == "v1"


async def test_runs_go_back_to_unversioned_workers(client: Client) -> None:
    handle = await client.start_workflow("Rollout", id="back", task_queue=QUEUE)

    async with asyncio.timeout(DEADLINE_S), worker(client, First, "v1"):
        await make_current(client, "v1")
        assert await handle.query("is_waiting", result_type=bool)
        async with worker(client, Second):
            await make_current(client, "")
            await handle.signal("end")
            result = await handle.result()

    assert result == "second"


async def test_an_unversioned_worker_names_no_behaviour(client: Client) -> None:
    async with worker(client, First):
        handle = await client.start_workflow("Rollout", id="unversioned", task_queue=QUEUE)
        await handle.signal("end")

        assert await handle.result() == "first"


async def test_compatible_code_passes_the_rehearsal(client: Client) -> None:
    await waiting(client, "one", "two", "three")

    done = await rehearsed(client, Second)

    assert str(done) == "3 runs replayed, 0 broken, 0 gone meanwhile"


async def test_incompatible_code_is_reported_with_the_run_it_would_break(client: Client) -> None:
    await waiting(client, "one", "two")

    done = await rehearsed(client, Incompatible)

    assert sorted(broken.workflow_id for broken in done.broken) == ["one", "two"]
    assert "[TMPRL1100]" in done.broken[0].reason
    assert str(done.broken[0]).startswith(f"BROKEN {done.broken[0].workflow_id} (Rollout, run ")


async def test_a_workflow_that_this_code_lacks_is_reported(client: Client) -> None:
    await waiting(client, "one")

    done = await rehearsed(client, Other)

    assert [broken.workflow_id for broken in done.broken] == ["one"]
    assert "Rollout" in done.broken[0].reason


async def test_a_limit_ends_the_rehearsal_early(client: Client) -> None:
    await waiting(client, "one", "two", "three")

    assert (await rehearsed(client, Second, limit=2)).replayed == 2


async def test_more_runs_than_are_fetched_at_once_are_each_replayed_once(client: Client) -> None:
    for number in range(50):
        await client.start_workflow("Rollout", id=f"run-{number}", task_queue=QUEUE)
    await listed(client, 50)

    assert (await rehearsed(client, Second)).replayed == 50


def program(client: Client, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
        "STAGELY_ENCRYPTION_KEY_FILE": str(KEY_FILE),
    }
    argv = [sys.executable, "worker.py", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def test_the_replay_command_ends_with_0_when_all_runs_go_on(client: Client) -> None:
    await client.start_workflow("VmLeaseWorkflow", LEASE, id="vm/1", task_queue=WORKFLOW_QUEUE)
    await listed(client, 1)

    done = await asyncio.to_thread(program, client, "--replay")

    assert (done.stdout, done.returncode) == ("1 runs replayed, 0 broken, 0 gone meanwhile\n", 0)


async def test_the_replay_command_ends_with_1_and_names_what_breaks(client: Client) -> None:
    await client.start_workflow("Forgotten", id="forgotten/1", task_queue=WORKFLOW_QUEUE)
    await listed(client, 1)

    done = await asyncio.to_thread(program, client, "--replay")

    assert done.stdout.startswith("BROKEN forgotten/1 (Forgotten, run ")
    assert done.returncode == 1
