"""An installation that looks after its certificate: real Temporal and Pebble, a DNS provider that is a fake."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import acme.client
import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from activities.certificates import CertificateActivities
from activities.failures import FailureInterceptor
from activities.wiring import certificate_activities
from providers.acme import AcmeAuthority
from providers.dns import hetzner
from providers.dns.base import DnsZone, Visibility
from providers.dns.hetzner import HetznerZone
from providers.dns.nameservers import Nameservers
from providers.errors import ProviderUnavailable
from stagely.certificates import CertificateFolder
from stagely.ids import mint
from stagely.txt import TxtRecord
from tests.acme.pebble import Dns, Pebble, dns_server, pebble_server
from tests.fakes.dns.hetzner import FakeHetzner
from tests.fakes.dns.rest import TOKEN
from workflows.certificate import CertificateWorkflow
from workflows.deployment import runner
from workflows.failures import innermost
from workflows.issuance import CertificateInput, CertificateState
from workflows.messages import CERTIFICATE_QUEUE, WORKFLOW_QUEUE

ZONE = "example.com"
STICKY = timedelta(seconds=2)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dns]:
    with dns_server(tmp_path_factory.mktemp("dns")) as made:
        yield made


@pytest.fixture(scope="session")
def pebble(tmp_path_factory: pytest.TempPathFactory, dns: Dns) -> Iterator[Pebble]:
    """Without its bad nonces: test_authority.py has them."""
    with pebble_server(tmp_path_factory.mktemp("pebble"), dns, WFE_NONCEREJECT=0) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others are asked for every second in earnest is asked for at once here."""
    short = SimpleNamespace(sleep=lambda _: time.sleep(0.02))  # noqa: TID251  # It waits in a thread of its own.
    monkeypatch.setattr(acme.client, "time", short)
    monkeypatch.setattr(hetzner, "ACTION_POLL_S", 0.01)


@dataclass(slots=True)
class Site:
    """One installation with a domain of its own; `now_s` is how far ahead its clock is."""

    client: Client
    folder: CertificateFolder
    provider: FakeHetzner
    domain: str
    activities: CertificateActivities
    ahead_s: list[float] = field(default_factory=lambda: [0.0])

    @property
    def challenge(self) -> str:
        return f"_acme-challenge.{self.domain}"

    async def look(self) -> CertificateState:
        """One run, as the schedule starts it."""
        return await self.client.execute_workflow(
            CertificateWorkflow.run, CertificateInput(self.domain), id=mint("certificate"), task_queue=WORKFLOW_QUEUE
        )

    async def failed_look(self) -> tuple[str, str]:
        """The code and the sentence of a run that fails."""
        with pytest.raises(WorkflowFailureError) as told:
            await self.look()
        assert isinstance(told.value.cause, ActivityError)
        cause = innermost(told.value.cause)
        assert isinstance(cause, ApplicationError)
        return cause.type or "", cause.message

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Site]:
        """With workers that serve it."""
        served, intercept = certificate_activities(self.activities), [FailureInterceptor()]
        decides = Worker(
            self.client,
            task_queue=WORKFLOW_QUEUE,
            workflows=[CertificateWorkflow],
            workflow_runner=runner(),
            sticky_queue_schedule_to_start_timeout=STICKY,
        )
        does = Worker(self.client, task_queue=CERTIFICATE_QUEUE, activities=served, interceptors=intercept)
        async with decides, does:
            yield self


@dataclass(slots=True)
class Unseeing:
    """The world while it does not see what is put into the DNS."""

    is_blind: bool = True

    async def wait_for(self, records: Collection[TxtRecord], limit_s: float) -> None:
        if self.is_blind:
            await asyncio.sleep(limit_s)
            raise ProviderUnavailable("nothing is seen")


@asynccontextmanager
async def site_of(
    client: Client,
    path: Path,
    dns: Dns,
    directory: str,
    *,
    profile: str = "default",
    domain: str = "",
    publishes: bool = True,
    sees: Visibility | None = None,
) -> AsyncIterator[Site]:
    """An installation in this folder. `publishes`: whether the authority sees the provider's records at all."""
    domain = domain or f"preview{next(_numbers)}.{ZONE}"
    folder = CertificateFolder(path / "certificates")
    ahead_s = [0.0]
    own = Nameservers(ZONE, [("127.0.0.1", dns.port)], poll_s=0.02) if publishes else Unseeing(is_blind=False)
    with FakeHetzner(ZONE, dns.publish if publishes else lambda name, values: None) as provider:

        def zone_of() -> DnsZone:
            return HetznerZone(ZONE, TOKEN, provider.url)

        authority = AcmeAuthority(directory, "operator@example.org", profile, folder.account_key)
        made = CertificateActivities(folder, authority, zone_of, sees or own, lambda: time.time() + ahead_s[0])
        yield Site(client, folder, provider, domain, made, ahead_s)


@pytest.fixture
def trusted(pebble: Pebble, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process trusts Pebble's TLS, as an operator makes a worker trust an authority of the house."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))


@pytest.fixture
async def site(temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None) -> AsyncIterator[Site]:
    """An installation that Pebble gives certificates to, with its workers."""
    async with site_of(temporal_client, tmp_path, dns, pebble.directory) as made, made.working():
        yield made
