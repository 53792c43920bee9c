"""The engines of a run, each a child process that ends with its block: PostgreSQL, Valkey, Temporal's dev server.

They run as `stagely dev` runs them (Temporal with a database file and its pragma, PostgreSQL with fsync), without the
Web UI, on free ports and in a folder of the run's own.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.common import SearchAttributeKey

from bench.lifecycle.bare import PHASE
from stagely.dev import postgres
from stagely.dev.engines import DYNAMIC_CONFIG
from tests.services import child, free_port, temporal_program, valkey_server
from workflows import attributes


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Stores:
    """What serves all rounds of a run; each round has a database of its own and an emptied Valkey."""

    postgres: Server
    valkey_port: int


@contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    with ExitStack() as stack:
        database = stack.enter_context(_postgres_server(folder))
        yield Stores(database, stack.enter_context(valkey_server(folder)))


@contextmanager
def temporal_server(folder: Path) -> Iterator[Server]:
    """A dev server on an empty database file: no round pays for the rows of the one before it."""
    port = free_port()
    argv = [temporal_program(), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--headless"]
    argv += ["--log-level", "error"]
    argv += ["--db-filename", str(folder / "temporal.db"), "--sqlite-pragma", "synchronous=normal"]
    argv += [a for setting in DYNAMIC_CONFIG for a in ("--dynamic-config-value", _as_json(setting))]
    argv += [a for key in (PHASE, *attributes.ALL) for a in ("--search-attribute", _named(key))]
    with child(argv, folder / "temporal.log") as process:
        yield Server(port, process.pid)


@contextmanager
def _postgres_server(folder: Path) -> Iterator[Server]:
    postgres.initialise(folder / "postgres")
    port = free_port()
    with child(postgres.command(folder / "postgres", port), folder / "postgres.log", signal.SIGINT) as process:
        yield Server(port, process.pid)


def _as_json(setting: str) -> str:
    """Values of dynamic config are JSON: text wants quotes."""
    key, _, value = setting.partition("=")
    return setting if value in ("true", "false") or value.isdigit() else f"{key}={json.dumps(value)}"


def _named(key: SearchAttributeKey[Any]) -> str:  # Any: of whatever type its values are.
    return f"{key.name}={key.indexed_value_type.name.capitalize()}"
