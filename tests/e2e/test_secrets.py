"""No secret of an installation is where it must not be: Temporal's database, Redis, logs, HTTP answers, comments."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.e2e.system import ROOT, System
from tests.secrecy import is_in

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(600)]

SECRET_FILES = (
    "token", "github-token", "webhook-secret", "signing-key", "encryption-key", "codec-token", "github-app-key.pem",
)  # fmt: skip
ENROLMENT_TOKEN = re.compile(rb"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}")  # A JWT of any kind.
PLACES = ("logs", "valkey", "temporal.db", "temporal.db-wal")


def test_no_secret_is_found_in_temporal_redis_logs_or_answers(system: System) -> None:
    repository = system.repository(ROOT / "examples" / "single")
    opened = system.run("up", str(repository))
    assert opened.code == 0
    answers = answers_about(system, opened.data["environment"])
    redis = everything_in_redis(system.installation.urls["redis"])
    assert system.run("close", str(repository)).code == 0

    written = files_of(system.state)
    found = [
        (name, place)
        for name, secret in secrets_of(system.state)
        for place, content in {**written, "redis": redis, "answers": answers}.items()
        if is_in(secret, content)
    ]
    tokens = [place for place, content in written.items() if ENROLMENT_TOKEN.search(content)]
    assert (found, tokens) == ([], [])
    assert ENROLMENT_TOKEN.search(redis + answers) is None
    assert {"worker.log", "gateway.log", "temporal.db"} <= set(written)


def files_of(state: Path) -> dict[str, bytes]:
    """Name to content of every file that Temporal, Valkey or a log wrote."""
    roots = [state / place for place in PLACES]
    files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def secrets_of(state: Path) -> list[tuple[str, str]]:
    """(file, secret): the lines of every secret file; of a key line `ID:HEX` the key."""
    lines = [(name, line) for name in SECRET_FILES for line in (state / name).read_text().split("\n")]
    found = [(name, line.rpartition(":")[2].strip()) for name, line in lines if not line.startswith("-----")]
    long = [(name, secret) for name, secret in found if len(secret) >= 16]
    assert {name for name, _ in long} == set(SECRET_FILES)
    return long


def answers_about(system: System, environment: str) -> bytes:
    """What the api and the forge's comments say of this environment, and its whole log."""
    here = system.installation
    paths = ("", f"/{environment}", f"/{environment}/vms", f"/{environment}/logs")
    headers = {"Authorization": f"Bearer {here.token}"}
    with httpx.Client(base_url=here.api, headers=headers, timeout=30) as http:
        bodies = [http.get(f"/v1/api/environments{path}").raise_for_status().text for path in paths]
        open_ones = [http.get(path).raise_for_status().text for path in ("/openapi.json", "/docs", "/healthz")]
    return json.dumps([*bodies, *open_ones, *system.comments(environment)]).encode()


def everything_in_redis(url: str) -> bytes:
    """Every key with its value."""
    client = Redis.from_url(url)  # It decodes nothing: all is bytes.
    try:
        # DUMP compresses what is long; strings, which is all that we keep there, are read as they are.
        pairs = [
            (key, client.get(key) if client.type(key) == b"string" else client.dump(key))
            for key in client.scan_iter("*")
        ]
    finally:
        client.close()
    assert pairs
    return repr(pairs).encode()
