"""Record one history per workflow and phase: `python -m tests.workflows.record_histories`.

Only for a change that is meant to end compatibility with running environments, or for a new phase; see CONTRIBUTING.md.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from redis.asyncio import Redis
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.dev.postgres import ensure_database
from stagely.states import EnvironmentState
from tests.services import postgres_server, temporal_server, valkey_server
from tests.workflows.world import World, world
from workflows.messages import FailureReport, Timings

FOLDER = Path(__file__).parent / "histories"
Scene = Callable[[World], Awaitable[None]]


async def ready_then_closed(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, EnvironmentState.READY)
    here.forge.close(1)
    await here.webhook(1, "closed")
    await here.handle(1).result()


async def resting(here: World) -> None:
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, EnvironmentState.READY)


async def failed_build(here: World) -> None:
    here.agents.answer = lambda order: FailureReport("build", "no", "api", 1) if order.build else None
    here.forge.push(1)
    await here.webhook(1, "opened")
    await here.until(1, EnvironmentState.FAILED)
    await here.until_true(lambda: here.cloud.alive == {})


async def superseded(here: World) -> None:
    first = here.forge.push(1)
    here.agents.answer = lambda order: "silent" if order.build and order.build.sha == first else None
    await here.webhook(1, "opened")
    await here.until_true(lambda: len([o for o in here.agents.seen if o.build]) == 2)
    second = here.forge.push(1)
    await here.webhook(1)
    await here.until(1, EnvironmentState.READY, second)


SCENES: tuple[Scene, ...] = (ready_then_closed, resting, failed_build, superseded)


async def record(scene: Scene, temporal: int, postgres: int, valkey: int) -> None:
    name = scene.__name__
    await ensure_database(postgres, name, 30)
    url = f"postgresql://stagely@127.0.0.1:{postgres}/{name}"
    await asyncio.to_thread(upgrade, url)
    client = await Client.connect(f"127.0.0.1:{temporal}", data_converter=pydantic_data_converter)
    engine, redis = create_engine(url), Redis.from_url(f"redis://127.0.0.1:{valkey}/0")
    async with world(client, engine, redis, Timings(debounce_s=0.2)) as here:
        await scene(here)
        await asyncio.sleep(1)  # The visibility list lags a little behind.
        async for found in client.list_workflows():
            history = await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
            (FOLDER / f"{found.workflow_type}.{name}.json").write_text(history.to_json())  # One of each kind is enough.
    await redis.aclose()
    await engine.dispose()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for scene in SCENES:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            temporal = stack.enter_context(temporal_server(folder))
            postgres = stack.enter_context(postgres_server(folder / "postgres"))
            valkey = stack.enter_context(valkey_server(folder))
            asyncio.run(_when_up(scene, temporal, postgres, valkey))
    os._exit(0)  # A Temporal worker lived in this process: see stagely/process.py.


async def _when_up(scene: Scene, temporal: int, postgres: int, valkey: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await Client.connect(f"127.0.0.1:{temporal}")
                break
            except RuntimeError:
                await asyncio.sleep(0.2)
    await record(scene, temporal, postgres, valkey)


if __name__ == "__main__":
    main()
