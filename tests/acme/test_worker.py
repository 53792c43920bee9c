"""The real worker: what it measures, and that another one finishes what it was at when it was killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client

from stagely.certificates import CertificateFolder, names_of
from tests.acme.pebble import Dns, Pebble
from tests.encryption import KEY_FILE
from tests.fakes.dns.digitalocean import FakeDigitalOcean
from tests.fakes.dns.hetzner import FakeHetzner
from tests.fakes.dns.rest import TOKEN
from tests.fakes.dns.route53 import KEY_ID, SECRET, FakeRoute53
from tests.fakes.dns.server import FakeDns, Seen
from tests.namespaces import fresh_namespace
from tests.services import free_port
from tests.workflows.certificates import signed_by_itself
from workflows.schedules import CERTIFICATE

ROOT = Path(__file__).parents[2]
DEADLINE_S = 100.0
ZONE = "example.com"
PROVIDERS: dict[str, Callable[[str, Seen], FakeDns]] = {
    "digitalocean": FakeDigitalOcean,
    "hetzner": FakeHetzner,
    "route53": FakeRoute53,
}


@contextmanager
def worker(settings: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv, environment = [sys.executable, "worker.py"], {**os.environ, **settings}
    with log.open("ab") as out, subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=out) as process:
        try:
            yield process
        finally:
            process.kill()


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not claim():  # noqa: ASYNC110  # Files, and a fake in another thread.
            await asyncio.sleep(0.002)


async def finished(client: Client) -> list[str]:
    """How the looks ended, once one has."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [run async for run in client.list_workflows("WorkflowType = 'CertificateWorkflow'")]
            ended = [run.status.name for run in found if run.status is not None and run.close_time]
            if ended:
                return ended
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("moments", "provider", "most_orders"),
    [
        (("with both records in the DNS",), "digitalocean", 1),
        # Whether the worker had the authority's answer is unknown; Pebble, unlike Let's Encrypt, gives no order twice.
        pytest.param(("with the order placed",), "hetzner", 2, marks=pytest.mark.slow),
        pytest.param(("between its two records",), "route53", 1, marks=pytest.mark.slow),
        pytest.param(("while the authority checks",), "hetzner", 1, marks=pytest.mark.slow),
        pytest.param(("with the certificate installed",), "route53", 1, marks=pytest.mark.slow),
        pytest.param(("between its two records", "while the authority checks"), "hetzner", 1, marks=pytest.mark.slow),
    ],
    ids=lambda value: ", then ".join(value) if isinstance(value, tuple) else None,
)
async def test_killed_worker_leaves_an_order_that_another_one_finishes(
    moments: tuple[str, ...],
    provider: str,
    most_orders: int,
    temporal_client: Client,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    dns: Dns,
    pebble: Pebble,
) -> None:
    client = await fresh_namespace(temporal_client)
    domain = f"killed-{len(str(moments))}.{ZONE}"
    folder, name = CertificateFolder(tmp_path / "certificates"), f"_acme-challenge.{domain}"
    orders, checks = pebble.requests("/order-plz"), pebble.requests("/chalZ/")
    with PROVIDERS[provider](ZONE, dns.publish) as fake:
        due: dict[str, Callable[[], bool]] = {
            "with the order placed": lambda: pebble.requests("/order-plz") > orders,
            "between its two records": lambda: len(fake.txt.get(name, ())) == 1,
            "with both records in the DNS": lambda: len(fake.txt.get(name, ())) == 2,
            "while the authority checks": lambda: pebble.requests("/chalZ/") > checks,
            "with the certificate installed": folder.certificate.exists,
        }
        settings = settings_of(client, database_url, redis_url, tmp_path, dns, pebble, provider, fake, domain)
        await kill_in_turn(settings, tmp_path, [due[moment] for moment in moments])
        with worker(settings, tmp_path / "last.log"):
            ended = await finished(client)

    assert ended == ["COMPLETED"]
    validity = folder.validity()
    assert validity is not None
    assert validity.names == {domain, f"*.{domain}"}
    assert (fake.txt, folder.challenges()) == ({}, ())
    assert 1 <= pebble.requests("/order-plz") - orders <= most_orders
    assert [schedule.id async for schedule in await client.list_schedules() if schedule.id == CERTIFICATE]


async def test_worker_measures_when_the_certificate_ends(
    temporal_client: Client, database_url: str, redis_url: str, tmp_path: Path, dns: Dns, pebble: Pebble
) -> None:
    client, listen = await fresh_namespace(temporal_client), f"127.0.0.1:{free_port()}"
    folder, domain = CertificateFolder(tmp_path / "certificates"), f"measured.{ZONE}"
    installed = folder.install(signed_by_itself(folder.next_key(), names_of(domain)))
    with FakeHetzner(ZONE) as fake:
        settings = settings_of(client, database_url, redis_url, tmp_path, dns, pebble, "hetzner", fake, domain)
        with worker({**settings, "STAGELY_WORKER_METRICS_LISTEN": listen}, tmp_path / "worker.log"):
            await finished(client)
            async with httpx.AsyncClient() as visitor:
                metrics = (await visitor.get(f"http://{listen}/metrics")).text

    (line,) = [one for one in metrics.splitlines() if one.startswith("stagely_certificate_expiry_timestamp_seconds{")]
    assert f'domain="{domain}"' in line
    assert float(line.rpartition(" ")[2]) == installed.ends_at
    assert fake.journal == []


async def kill_in_turn(settings: dict[str, str], path: Path, moments: list[Callable[[], bool]]) -> None:
    """A worker for each of these moments, killed when it has come."""
    for moment in moments:
        with worker(settings, path / "killed.log"):
            await until(moment)


def settings_of(
    client: Client, database_url: str, redis_url: str, path: Path, dns: Dns, pebble: Pebble, provider: str,
    fake: FakeDns, domain: str,
) -> dict[str, str]:  # fmt: skip
    (path / "signing-key").write_text("5a" * 32)
    (path / "dns-token").write_text(TOKEN)
    return {
        "STAGELY_DATABASE_URL": database_url,
        "STAGELY_REDIS_URL": redis_url,
        "STAGELY_SIGNING_KEY_FILE": str(path / "signing-key"),
        "STAGELY_ENCRYPTION_KEY_FILE": str(KEY_FILE),
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
        "STAGELY_CERTIFICATE_DOMAIN": domain,
        "STAGELY_CERTIFICATE_FOLDER": str(path / "certificates"),
        "STAGELY_ACME_DIRECTORY": pebble.directory,
        "STAGELY_ACME_PROFILE": "default",
        "STAGELY_DNS_PROVIDER": provider,
        "STAGELY_DNS_ZONE": ZONE,
        "STAGELY_DNS_TOKEN_FILE": str(path / "dns-token"),
        "STAGELY_DNS_API_URL": fake.url,
        "STAGELY_DNS_NAMESERVERS": f"127.0.0.1:{dns.port}",
        "REQUESTS_CA_BUNDLE": str(pebble.ca_file),
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
