"""The parts of docker-compose.temporal.yml as programs of this machine: its settings and scripts without its images."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stagely.dev.ports import is_free
from stagely.dev.postgres import AS_ORDINARY_USER
from stagely.dev.setup_record import cache_folder
from tests.services import child, free_port, temporal_program

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.temporal.yml"
FOLDER = ROOT / "deploy" / "temporal"
PASSWORDS = {
    "TEMPORAL_POSTGRES_PASSWORD": "0a11",
    "STAGELY_POSTGRES_PASSWORD": "0b22",
    "STAGELY_REDIS_PASSWORD": "0c33",
}
SCRIPT_TIMEOUT_S = 150.0
BUILD_TIMEOUT_S = 1200.0  # From nothing on two cores; 45 s when setup has built the CLI, which shares most packages.
_SERVER_PORTS = (
    "FRONTEND_GRPC_PORT",
    "FRONTEND_HTTP_PORT",
    "FRONTEND_MEMBERSHIP_PORT",
    "MATCHING_GRPC_PORT",
    "MATCHING_MEMBERSHIP_PORT",
    "HISTORY_GRPC_PORT",
    "HISTORY_MEMBERSHIP_PORT",
    "WORKER_GRPC_PORT",
    "WORKER_MEMBERSHIP_PORT",
)


def compose(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`docker compose ARGUMENTS` on our file with the example's variables; it needs no Engine."""
    argv = ["docker", "compose", "-f", str(COMPOSE_FILE), "--env-file", str(FOLDER / "example.env"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "STAGELY_"))}
    return subprocess.run(argv, env={**kept, **environment}, capture_output=True, text=True, timeout=60)


def services() -> dict[str, Any]:  # Any: Compose's own JSON.
    """Every service as Compose understands it, merged and interpolated."""
    done = compose(["config", "--format", "json"], PASSWORDS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def environment_of(service: str) -> dict[str, str]:
    """The variables that our file gives this service."""
    return {name: str(value) for name, value in services()[service]["environment"].items()}


def script(name: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One of our scripts to its end, with a home of nobody: a developer's own profiles play no part."""
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TEMPORAL": temporal_program()}
    return subprocess.run(
        ["sh", str(FOLDER / name)],
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
    )


def program(name: str, package: str) -> str:
    """A program of the Temporal release that our module pins: from PATH, or built once into the cache."""
    built = cache_folder() / "bin" / f"{name}-1.31.2"
    if found := shutil.which(name) or (str(built) if built.exists() else None):
        return found
    if shutil.which("go") is None:
        _cannot(f"there is neither {name} on PATH nor Go to build it with")
    draft = built.with_suffix(f".{os.getpid()}")
    built.parent.mkdir(parents=True, exist_ok=True)
    # The very flags of scripts/setup/steps/temporal.sh: with others Go would compile every package anew.
    flags = ["-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w"]
    done = subprocess.run(
        ["go", "build", *flags, "-o", str(draft), package],
        cwd=FOLDER / "server",
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    draft.rename(built)
    return str(built)


@contextmanager
def postgres_with_contrib(folder: Path, user: str, password: str) -> Iterator[int]:
    """The port of a PostgreSQL that asks for the password and has btree_gin, which the embedded one has not."""
    binaries, port = _binaries(), free_port()
    prefix = AS_ORDINARY_USER if os.geteuid() == 0 else []
    word = folder / "password"
    word.write_text(password)
    made = ["-D", str(folder / "data"), "-U", user, "-E", "UTF8", "--locale=C", "-A", "scram-sha-256"]
    subprocess.run(
        [*prefix, str(binaries / "initdb"), *made, f"--pwfile={word}", "--no-sync"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    options = ["-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", "fsync=off"]
    with child([*prefix, str(binaries / "postgres"), *options], folder / "postgres.log"):
        yield port


def postgres_tool(name: str, port: int, password: str, *arguments: str) -> None:
    """pg_dump and its like, of the release that `postgres_with_contrib` runs, as user temporal."""
    argv = [str(_binaries() / name), "-h", "127.0.0.1", "-p", str(port), "-U", "temporal", *arguments]
    env = {**os.environ, "PGPASSWORD": password}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=SCRIPT_TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/btree_gin.so"))
    if not found:
        _cannot("there is no PostgreSQL with its contrib extensions below /usr/lib/postgresql (Debian: postgresql)")
    return found[-1].parents[1] / "bin"


@contextmanager
def temporal(server: str, folder: Path, postgres_port: int, changes: Mapping[str, str]) -> Iterator[str]:
    """The address of a server with the settings of our file, on this machine's loopback. `changes`: ports, and more."""
    given = environment_of("temporal")
    here = {
        "POSTGRES_SEEDS": "127.0.0.1",
        "DB_PORT": str(postgres_port),
        "BIND_ON_IP": "127.0.0.1",
        "DYNAMIC_CONFIG_FILE_PATH": str(FOLDER / "config" / Path(given["DYNAMIC_CONFIG_FILE_PATH"]).name),
        "PROMETHEUS_ENDPOINT": f"127.0.0.1:{free_port()}",
        **changes,
    }
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**given, **here}.items():
            patch.setenv(name, value)  # A child inherits; `child` takes no environment of its own.
        stack.enter_context(child([server, "start"], folder / "temporal.log"))
        yield f"127.0.0.1:{changes['FRONTEND_GRPC_PORT']}"


def server_ports() -> dict[str, str]:
    """Free ports for everything that a server listens on. Below 32768: the database keeps them as SMALLINT."""
    candidates = random.Random(os.getpid()).sample(range(20000, 32000), 200)
    found = [port for port in candidates if is_free(port)][: len(_SERVER_PORTS)]
    return dict(zip(_SERVER_PORTS, map(str, found), strict=True))


def _cannot(reason: str) -> None:
    """Skip on a person's machine; where CI says that everything must run, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
