"""Record the histories of all scenes: `python -m tests.workflows.record_histories`.

Runs in which the same happened, in whatever order, are recorded once: by the first scene that has one. Only for a
change that is meant to end compatibility with running environments, or for a new phase; see CONTRIBUTING.md.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter

from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.dev.postgres import ensure_database
from stagely.leaving import leave
from tests.services import postgres_server, temporal_server, valkey_server
from tests.workflows.scenes import SCENES, Scene
from tests.workflows.world import world

FOLDER = Path(__file__).parent / "histories"
STACK_TRACE = re.compile(r'("stackTrace": )"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes into `folder`. `seen`: what happened in the runs that it holds."""

    folder: Path
    seen: set[frozenset[tuple[str, int]]] = field(default_factory=set)

    async def record(self, client: Client, scene: Scene) -> None:
        found = [run async for run in client.list_workflows()]
        for run in sorted(found, key=lambda run: run.start_time):
            history = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
            shape = happened(history)
            if shape not in self.seen:
                self.seen.add(shape)
                self._free(f"{run.workflow_type}.{scene.name}").write_text(without_traces(history))

    def _free(self, stem: str) -> Path:
        """A file that no earlier run of the scene took."""
        taken = len(list(self.folder.glob(f"{stem}.*json")))
        return self.folder / (f"{stem}.{taken + 1}.json" if taken else f"{stem}.json")


def without_traces(history: WorkflowHistory) -> str:
    """As JSON. A failure's stack trace would tell where the recording machine keeps its files; no replay reads it."""
    return STACK_TRACE.sub(r'\1""', history.to_json())


def happened(history: WorkflowHistory) -> frozenset[tuple[str, int]]:
    """How often each thing happened to a run. Timing decides how many tasks that took, and how often agents said it."""
    counted = Counter[str]()
    for event in history.events:
        kind = event.WhichOneof("attributes") or ""
        if kind.startswith("workflow_task_"):
            continue
        told = getattr(event, kind)
        named = {"activity_type", "workflow_type", "signal_name"} & set(told.DESCRIPTOR.fields_by_name)
        name = " ".join([kind, *(str(getattr(told, key)) for key in sorted(named))])
        counted[name] = 1 if kind == "workflow_execution_signaled_event_attributes" else counted[name] + 1
    return frozenset(counted.items())


async def play(scene: Scene, recorder: Recorder, temporal: int, postgres: int, valkey: int) -> None:
    await ensure_database(postgres, scene.name, 30)
    url = f"postgresql://stagely@127.0.0.1:{postgres}/{scene.name}"
    await asyncio.to_thread(upgrade, url)
    client = await connected(temporal)
    engine, redis = create_engine(url), Redis.from_url(f"redis://127.0.0.1:{valkey}/0")
    settings = {
        "history_limit": scene.history_limit,
        "build_slots": scene.build_slots,
        "alternatives": scene.alternatives,
    }
    async with world(client, engine, redis, scene.timings, **settings) as here:
        await scene.play(here)
        await asyncio.sleep(1)  # The visibility list lags a little behind.
        await recorder.record(client, scene)
    await redis.aclose()
    await engine.dispose()


async def connected(port: int) -> Client:
    """Not encrypted: who reviews a change of these files reads them."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await Client.connect(f"127.0.0.1:{port}", data_converter=pydantic_data_converter)
            except RuntimeError:
                await asyncio.sleep(0.2)


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        recorder = Recorder(Path(made))
        for scene in SCENES:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                temporal = stack.enter_context(temporal_server(folder))
                postgres = stack.enter_context(postgres_server(folder / "postgres"))
                valkey = stack.enter_context(valkey_server(folder))
                asyncio.run(play(scene, recorder, temporal, postgres, valkey))
        replace(FOLDER, recorder.folder)
    leave()


def replace(old: Path, new: Path) -> None:
    """Only once every scene has played, so that a recording that fails leaves the last one whole."""
    old.mkdir(exist_ok=True)
    for path in old.glob("*.json"):
        path.unlink()
    for path in new.glob("*.json"):
        (old / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
