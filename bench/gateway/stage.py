"""What a scenario stands on: PostgreSQL, Valkey, keys, and per target a database of its own with its agents in it."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.gateway.machine import Cores
from bench.gateway.residents import Resident, settle
from bench.lifecycle.servers import Stores
from bench.measures import Measure
from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.dev.folder import write_private
from stagely.dev.postgres import USER, ensure_database
from stagely.keyring import KEY_BYTES
from stagely.tokens import EnrolmentTokens

START_TIMEOUT_S = 60.0
PREVIEW, BUILDER = "preview", "builder"


class Incomplete(Exception):
    """What a scenario measures did not happen; going on would only wait for more of it. The text says what."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`folder` is the run's own."""

    stores: Stores
    cores: Cores
    folder: Path

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.stores.valkey_port}/0"

    @property
    def signing_key_file(self) -> Path:
        return _key_file(self.folder / "signing-key", "")

    @property
    def encryption_key_file(self) -> Path:
        return _key_file(self.folder / "encryption-keys", "bench:")

    def database_url(self, name: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.stores.postgres.port}/{name}"

    def tokens(self) -> EnrolmentTokens:
        return EnrolmentTokens(self.signing_key_file.read_text().strip())


@dataclass(frozen=True, slots=True)
class Scene:
    """One target's database, the agents that live in it, and a way to count what came of them."""

    stage: Stage
    database_url: str
    engine: AsyncEngine
    redis: Redis
    residents: list[Resident]

    async def count(self, what: str, **values: object) -> int:
        """`what` behind `SELECT count(*) FROM`."""
        return int(await self.value(f"SELECT count(*) FROM {what}", **values))

    async def value(self, query: str, **values: object) -> float:
        """The one number of a query."""
        async with self.engine.connect() as db:
            return float((await db.execute(text(query), values)).scalar_one() or 0)


@asynccontextmanager
async def scene(stage: Stage, name: str, agents: int, role: str) -> AsyncIterator[Scene]:
    """A new migrated database with so many agents' rows in it, and a Valkey with nothing but their routes."""
    url = stage.database_url(name)
    await ensure_database(stage.stores.postgres.port, name, START_TIMEOUT_S)
    await asyncio.to_thread(upgrade, url)
    engine = create_engine(url)
    redis: Redis = Redis.from_url(stage.redis_url)
    try:
        await redis.flushall()
        yield Scene(stage, url, engine, redis, await settle(engine, redis, stage.tokens(), agents, role))
    finally:
        await redis.aclose()
        await engine.dispose()


@dataclass(frozen=True, slots=True)
class Played:
    """The figures of a scenario or of one target in it, and what did not happen, as sentences."""

    measures: list[Measure]
    missing: list[str]


async def in_turn(scenario: str, targets: Mapping[str, Callable[[], Awaitable[Played]]]) -> Played:
    """Each target by its name, one after the other, with a line for who waits. One that fails ends itself only."""
    whole = Played([], [])
    for name, run in targets.items():
        played = await _surviving(run)
        whole.measures.extend(played.measures)
        whole.missing.extend(f"{scenario}, {name}: {text}" for text in played.missing)
        print(f"{scenario:<8} {name:<12} {'INCOMPLETE' if played.missing else 'done'}", file=sys.stderr, flush=True)
    return whole


async def _surviving(run: Callable[[], Awaitable[Played]]) -> Played:
    missing = []
    try:
        return await run()
    except* Incomplete as failed:
        missing.append(str(_first(failed)))
    return Played([], missing)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _key_file(path: Path, prefix: str) -> Path:
    if not path.exists():
        write_private(path, f"{prefix}{secrets.token_hex(KEY_BYTES)}\n")
    return path
