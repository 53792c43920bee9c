"""The worker as a program: how it starts, what it serves, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from stagely.rollout import current_build
from stagely.settings import Settings
from tests.encryption import KEY_FILE
from tests.namespaces import fresh_namespace
from tests.services import free_port
from worker import certificates_of

ROOT = Path(__file__).parents[1]
DEADLINE_S = 60.0


@pytest.fixture
async def given(temporal_client: Client, database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a worker in a namespace of its own."""
    client = await fresh_namespace(temporal_client)
    signing_key = tmp_path / "signing-key"
    signing_key.write_text("5a" * 32)
    return {
        "STAGELY_DATABASE_URL": database_url,
        "STAGELY_REDIS_URL": redis_url,
        "STAGELY_SIGNING_KEY_FILE": str(signing_key),
        "STAGELY_ENCRYPTION_KEY_FILE": str(KEY_FILE),
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
    }


@contextmanager
def program(given: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv, environment = [sys.executable, "worker.py", *arguments], {**os.environ, **given}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def said(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """The first log record of this event. Raises EOFError when the program ends without it."""
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        while line := await asyncio.to_thread(process.stderr.readline):
            record = json.loads(line)
            assert isinstance(record, dict)
            if record["event"] == event:
                return record
    raise EOFError(f"the worker ended without {event!r}")


async def ended(process: subprocess.Popen[str]) -> int:
    return await asyncio.to_thread(process.wait, DEADLINE_S)


async def test_a_worker_serves_metrics_and_ends_at_sigterm(given: dict[str, str]) -> None:
    listen = f"127.0.0.1:{free_port()}"

    with program({**given, "STAGELY_WORKER_METRICS_LISTEN": listen}, "--role", "workflows") as process:
        await said(process, "worker started")
        async with httpx.AsyncClient() as client:
            metrics = await client.get(f"http://{listen}/metrics")
        process.send_signal(signal.SIGTERM)
        await said(process, "worker stopping")
        code = await ended(process)

    assert 'role="workflows"' in metrics.text
    assert code == 0


async def test_a_versioned_worker_says_that_it_waits_and_gets_work_once_made_current(
    given: dict[str, str], temporal_client: Client
) -> None:
    versioned = {**given, "STAGELY_BUILD_ID": "2026-11-24"}
    client = await Client.connect(given["TEMPORAL_ADDRESS"], namespace=given["TEMPORAL_NAMESPACE"])

    with program(versioned, "--role", "workflows") as process:
        warned = await said(process, "worker gets no workflow tasks yet")
        await said(process, "worker started")
        with program(versioned, "--make-current") as making:
            code = await ended(making)
        current = await current_build(client)

    assert "STAGELY_BUILD_ID=2026-11-24 python worker.py --make-current" in str(warned["reason"])
    assert (code, current) == (0, "2026-11-24")


async def test_a_worker_without_keys_ends_with_a_sentence(given: dict[str, str]) -> None:
    with program({**given, "STAGELY_ENCRYPTION_KEY_FILE": "/none"}) as process:
        record = await said(process, "worker could not go on")
        code = await ended(process)

    assert record["reason"] == "STAGELY_ENCRYPTION_KEY_FILE=/none cannot be read: No such file or directory"
    assert code == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "STAGELY_CERTIFICATE_FOLDER is not set: it must be the folder that the edge reads from"),
        (
            {"dns_provider": "bind"},
            "STAGELY_DNS_PROVIDER is 'bind' and must be one of route53, digitalocean, hetzner",
        ),
        ({"dns_nameservers": "a"}, "STAGELY_DNS_NAMESERVERS must be host:port,host:port..., got 'a'"),
        (
            {"certificate_domain": "*.example.com"},
            "STAGELY_CERTIFICATE_DOMAIN must be a domain in lower case, without a wildcard, got '*.example.com'",
        ),
    ],
)
async def test_a_worker_that_cannot_look_after_its_certificate_says_why(settings: dict[str, str], told: str) -> None:
    folder = {"certificate_folder": "/none", "dns_provider": "route53"} if settings else {}
    # Any: of whatever type the setting is.
    given: dict[str, Any] = {"certificate_domain": "preview.example.com", **folder, **settings}

    with pytest.raises(RuntimeError) as refused:
        await certificates_of(Settings(**given))

    assert str(refused.value) == told


async def test_a_worker_whose_vm_ca_cannot_be_read_ends_with_a_sentence(given: dict[str, str]) -> None:
    with program({**given, "STAGELY_VM_CA_FILE": "/none"}) as process:
        record = await said(process, "worker could not go on")
        code = await ended(process)

    assert record["reason"] == "STAGELY_VM_CA_FILE=/none cannot be read: No such file or directory"
    assert code == 2
