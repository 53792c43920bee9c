"""Real servers for tests: PostgreSQL, Valkey and Temporal's dev server, each a child process on a free port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from temporalio.common import SearchAttributeIndexedValueType

from stagely.dev import postgres
from stagely.dev.engines import DYNAMIC_CONFIG, valkey_program
from workflows import attributes

STOP_TIMEOUT_S = 20.0
_KIND = {
    SearchAttributeIndexedValueType.KEYWORD: "Keyword",
    SearchAttributeIndexedValueType.INT: "Int",
    SearchAttributeIndexedValueType.DATETIME: "Datetime",
}
_LAUNCH = Path(__file__).parents[1] / "stagely" / "dev" / "launch.py"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextmanager
def child(argv: Sequence[str], log: Path, stop: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block, and with this process should it be killed."""
    launched = [sys.executable, str(_LAUNCH), str(os.getpid()), str(int(signal.SIGKILL)), *argv]
    with log.open("ab") as out, subprocess.Popen(launched, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def postgres_server(folder: Path) -> Iterator[int]:
    """The port of a server with its own cluster; databases are made by the caller."""
    folder.mkdir(parents=True, exist_ok=True)
    postgres.initialise(folder / "data")
    port = free_port()
    argv = [*postgres.command(folder / "data", port), "-c", "fsync=off"]  # Nothing here must survive a power cut.
    with child(argv, folder / "postgres.log", signal.SIGINT):
        yield port


@contextmanager
def valkey_server(folder: Path, port: int | None = None) -> Iterator[int]:
    """The port of a Valkey without persistence."""
    port = port or free_port()
    argv = [str(valkey_program()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with child(argv, folder / "valkey.log"):
        yield port


@contextmanager
def temporal_server(folder: Path, port: int | None = None, database: Path | None = None) -> Iterator[int]:
    """The port of a dev server, in memory unless `database` is given."""
    port = port or free_port()
    dynamic = [a for setting in DYNAMIC_CONFIG for a in ("--dynamic-config-value", _json_valued(setting))]
    where = ["--db-filename", str(database)] if database else []
    argv = [temporal_program(), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--headless"]
    named = [f"{key.name}={_KIND[key.indexed_value_type]}" for key in attributes.ALL]
    searched = [argument for one in named for argument in ("--search-attribute", one)]
    with child([*argv, "--log-level", "error", *dynamic, *where, *searched], folder / "temporal.log"):
        yield port


def temporal_program() -> str:
    """The CLI that setup found."""
    cache = Path(os.environ.get("STAGELY_CACHE") or Path.home() / ".cache" / "stagely")
    found = shutil.which("temporal") or str(cache / "bin" / "temporal")
    if not Path(found).exists():
        raise RuntimeError(f"no Temporal CLI at {found}: run `make setup`")
    return found


def _json_valued(setting: str) -> str:
    """Dynamic config values are JSON: text wants quotes, true and numbers do not."""
    key, _, value = setting.partition("=")
    return setting if value in ("true", "false") or value.isdigit() else f"{key}={json.dumps(value)}"
