"""One lane of trials: a namespace, a database and Valkey keys of its own, the world outside, and a worker to kill."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import insert
from temporalio.client import Client

from stagely import search_attributes
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.db.models import utc_now
from stagely.db.tables import projects
from stagely.dev.postgres import USER, ensure_database
from stagely.ids import mint
from tests.encryption import KEY_FILE
from tests.faults.director import Director
from tests.faults.points import Kill, Trace
from tests.faults.wire import Answer, Call, serve
from tests.faults.worker_process import WorkerPlace
from tests.namespaces import fresh_namespace
from tests.workflows.world import Agents, Cloud, Forge, World
from workflows import attributes
from workflows.messages import Timings

EFFECTS = {
    "cloud": frozenset({"create", "destroy"}),
    "forge": frozenset({"create_comment", "update_comment", "set_status"}),
    "registry": frozenset({"PUT", "DELETE"}),
}
UP_TIMEOUT_S = 60.0
_MIGRATING = asyncio.Lock()  # Alembic keeps its context in a module.
TIMINGS = Timings(debounce_s=0.2, boot_timeout_s=60)
CLAIM_S = 3.0  # A killed publisher's comment is taken up after this; 120 s in production.


@dataclass(frozen=True, slots=True)
class Ports:
    """Servers that all lanes share."""

    temporal: int
    postgres: int
    valkey: int


@dataclass(slots=True)
class Images:
    """A registry that has whatever agents say they pushed."""

    kept: set[str] = field(default_factory=set)

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:  # Any: (status, ...)
        name = path.rpartition("/")[2]
        if method == "PUT":
            self.kept.add(name)
        if method == "DELETE":
            self.kept.discard(name)
        if method == "GET" and "/blobs/" in path:
            return 200, {}, json.dumps({"os": "linux", "architecture": name[-5:]}).encode()
        if method == "GET" and "/manifests/" in path:
            return 200, {}, json.dumps({"config": {"digest": name}}).encode()
        return (202 if method in ("PUT", "DELETE") else 404), {}, b""


@dataclass(slots=True)
class Lane:
    """`world` is the outside and the way in; its workflows run in `worker`, a process that dies as it is told."""

    world: World
    place: WorkerPlace
    log: Path
    images: Images = field(default_factory=Images)
    director: Director = field(default_factory=Director)
    deaths: int = 0
    _process: asyncio.subprocess.Process | None = None

    def begin(self, kill: Kill | None = None) -> None:
        """A new trial."""
        self.director = Director(kill)
        self.world.cloud.journal.clear()
        self.world.forge.comments.clear()

    @property
    def trace(self) -> Trace:
        return self.director.trace

    async def handle(self, call: Call) -> Answer:
        """Do what a worker asks of the outside; perhaps it does not live to hear the answer."""
        if call.target == "director":
            return Answer(dies=self.director.note(*call.arguments))
        target = {"cloud": self.world.cloud, "forge": self.world.forge, "registry": self.images}[call.target]
        try:
            value = await getattr(target, call.method)(*call.arguments)
        except Exception as error:
            return Answer(error=error)
        effect = call.arguments[0] if call.target == "registry" else call.method
        dies = effect in EFFECTS[call.target] and self.director.note(call.unit, f"{call.target}.{effect}")
        return Answer(value, dies=dies)

    async def keep_worker_alive(self) -> None:
        """What a supervisor does: start it, and start it again at once when it died."""
        while True:
            with self.log.open("ab") as out:
                argv = [sys.executable, "-m", "tests.faults.worker_process", json.dumps(dataclasses.asdict(self.place))]
                self._process = await asyncio.create_subprocess_exec(*argv, stdout=out, stderr=out)
            await self._process.wait()
            self.deaths += 1

    async def stop_worker(self) -> None:
        """For good: to be called when nobody keeps it alive any more."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def lane(client: Client, ports: Ports, folder: Path, number: int, build_slots: int = 50) -> AsyncIterator[Lane]:
    """A lane with its worker running, one project and nothing in it."""
    own = await fresh_namespace(client)
    await search_attributes.ensure(own, attributes.ALL)
    name = mint("lane").replace("-", "_")
    await ensure_database(ports.postgres, name, UP_TIMEOUT_S)
    url = f"postgresql://{USER}@127.0.0.1:{ports.postgres}/{name}"
    async with _MIGRATING:
        await asyncio.to_thread(upgrade, url)
    place = WorkerPlace(
        temporal=client.service_client.config.target_host,
        namespace=own.namespace,
        database_url=url,
        redis_url=f"redis://127.0.0.1:{ports.valkey}/{number}",
        socket=str(folder / f"{name}.socket"),
        key_file=str(KEY_FILE),
        build_slots=build_slots,
        claim_s=CLAIM_S,
    )
    async with AsyncExitStack() as stack:
        made = await _world(own, place, stack)
        one = Lane(made, place, folder / f"{name}.log")
        server = await serve(Path(place.socket), one.handle)
        stack.callback(server.close)
        stack.push_async_callback(one.stop_worker)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for work in (one.keep_worker_alive(), made.agents.run()):
            stack.callback(group.create_task(work).cancel)
        yield one


async def _world(client: Client, place: WorkerPlace, stack: AsyncExitStack) -> World:
    engine = create_engine(place.database_url)
    stack.push_async_callback(engine.dispose)
    redis = Redis.from_url(place.redis_url)
    stack.push_async_callback(redis.aclose)
    await redis.flushdb()
    await ensure_local_team(engine, "token")
    async with engine.begin() as db:
        await db.execute(
            insert(projects).values(
                id="prj-test", team_id=LOCAL_TEAM, slug="app", repo_url="http://forge/local/app.git",
                repo_full_name="local/app", installation_id=1, provider="local", created_at=utc_now(),
            )
        )  # fmt: skip
    cloud, forge = Cloud(), Forge()
    return World(client, engine, redis, cloud, forge, Agents(client, engine, cloud), "prj-test", TIMINGS)
