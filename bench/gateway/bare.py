"""The peer: `websockets`' own asyncio server under uvloop, as its documentation shows it, and nothing more.

    python -m bench.gateway.bare ORDERS

It welcomes whoever says HELLO, reads every message as JSON, remembers when it heard a heartbeat, and acknowledges logs.
Its `Duty` adds the plain way to do what the gateway does in batches: check each HELLO by itself (Ed25519 over a nonce,
one row, one Redis key), store each frame of lines by a COPY of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from redis.asyncio import BlockingConnectionPool, Redis
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from agent.protocol import MAX_FRAME_BYTES, NONCE_BYTES, NONCE_HEADER, Ack, Hello, Welcome, encode, signed_bytes
from stagely.tokens import EnrolmentTokens

BACKLOG = 4096  # As the gateway: asyncio's 100 drops a herd's connections.
POOL_SIZE = 10
ROWS, CHUNKS = "rows", "chunks"
LINES_TABLE = "bench_lines"
CHUNKS_TABLE = "bench_chunks"
TABLES = f"""
CREATE TABLE {LINES_TABLE} (
    run_id text, stream text, n bigint, at timestamptz NOT NULL, line text NOT NULL, PRIMARY KEY (run_id, stream, n));
CREATE TABLE {CHUNKS_TABLE} (
    run_id text, stream text, seq bigint, at timestamptz NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (run_id, stream, seq));
"""

Body = dict[str, Any]  # Any: JSON.


@dataclass(frozen=True, slots=True)
class Duty:
    """`checks_hello`: each HELLO by itself; `stores`: ROWS, CHUNKS or "" for logs that are only acknowledged."""

    checks_hello: bool = False
    stores: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    port: int
    heartbeat_s: float
    database_url: str
    redis_url: str
    signing_key_file: str
    duty: Duty

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Orders:
        fields = json.loads(text)
        return cls(**{**fields, "duty": Duty(**fields["duty"])})


Check = Callable[[Body, str], Awaitable[None]]
Store = Callable[[str, Body], Awaitable[None]]


@dataclass(slots=True)
class Server:
    welcome: str
    check: Check | None
    store: Store | None
    heard_at: dict[str, float] = field(default_factory=dict)

    async def talk(self, socket: ServerConnection) -> None:
        try:
            await self._talk(socket)
        except ConnectionClosed:
            return  # Agents leave without a word.

    async def _talk(self, socket: ServerConnection) -> None:
        hello = json.loads(await socket.recv())
        if self.check is not None:
            assert socket.response is not None
            await self.check(hello, socket.response.headers[NONCE_HEADER])
        agent_id = hello["agent_id"]
        await socket.send(self.welcome)
        async for text in socket:
            body = json.loads(text)
            self.heard_at[agent_id] = time.monotonic()
            if body["type"] == "LOG":
                if self.store is not None:
                    await self.store(agent_id, body)
                await socket.send(encode(Ack(body["seq"])))


def checking(pool: asyncpg.Pool, redis: Redis, tokens: EnrolmentTokens) -> Check:
    async def check(hello: Body, nonce: str) -> None:
        said = Hello(**{name: value for name, value in hello.items() if name != "type"})
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said.public_key))
        key.verify(bytes.fromhex(said.signature), signed_bytes(said, nonce))
        if said.token:
            tokens.verify(said.token, time.time())
        shown, announced = (hashlib.sha256(one.encode()).hexdigest() for one in (said.session, said.next_session))
        await pool.execute(
            "UPDATE vms SET public_key = $2, previous_session_sha256 = $3, session_sha256 = $4, boot_id = $5, "
            "state = 'running', last_seen_at = now() WHERE id = $1",
            said.agent_id, said.public_key, shown, announced, said.boot_id,
        )  # fmt: skip
        await redis.set(f"session:{said.agent_id}", announced, ex=3600)

    return check


def storing(pool: asyncpg.Pool, form: str) -> Store:
    """Each frame by a COPY of its own, as a row per line or as one row."""
    counts: dict[str, int] = {}

    async def rows(agent_id: str, body: Body) -> None:
        now, first = datetime.now(UTC), counts.get(agent_id, 0)
        lines = body["data"].splitlines()
        counts[agent_id] = first + len(lines)
        records = [(agent_id, body["stream"], n, now, line) for n, line in enumerate(lines, first)]
        await pool.copy_records_to_table(LINES_TABLE, records=records, columns=("run_id", "stream", "n", "at", "line"))

    async def chunks(agent_id: str, body: Body) -> None:
        record = (agent_id, body["stream"], body["seq"], datetime.now(UTC), body["data"].encode())
        columns = ("run_id", "stream", "seq", "at", "data")
        await pool.copy_records_to_table(CHUNKS_TABLE, records=[record], columns=columns)

    return rows if form == ROWS else chunks


def give_nonce(socket: ServerConnection, request: Request, response: Response) -> None:
    response.headers[NONCE_HEADER] = os.urandom(NONCE_BYTES).hex()


async def run(orders: Orders) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    welcome = encode(Welcome(orders.heartbeat_s, 0))
    duty = orders.duty
    async with asyncpg.create_pool(orders.database_url, min_size=0, max_size=POOL_SIZE) as pool:
        redis: Redis = Redis(connection_pool=BlockingConnectionPool.from_url(orders.redis_url))
        tokens = EnrolmentTokens(Path(orders.signing_key_file).read_text().strip())
        server = Server(
            welcome,
            checking(pool, redis, tokens) if duty.checks_hello else None,
            storing(pool, duty.stores) if duty.stores else None,
        )
        async with serve(
            server.talk, "127.0.0.1", orders.port,
            compression=None, ping_interval=None, max_size=MAX_FRAME_BYTES, backlog=BACKLOG,
            process_response=give_nonce if duty.checks_hello else None,
        ):  # fmt: skip
            await stopped.wait()
        await redis.aclose()


if __name__ == "__main__":
    uvloop.run(run(Orders.from_text(sys.argv[1])))
