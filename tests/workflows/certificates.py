"""The world of a CertificateWorkflow in memory: an authority that signs by itself, a DNS that all see at once."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from temporalio.client import Client
from temporalio.worker import Worker

from activities.certificates import CertificateActivities
from activities.failures import FailureInterceptor
from activities.wiring import certificate_activities
from providers.authority import PlacedOrder
from providers.errors import AuthorityRefused, DnsRejected
from stagely.certificates import CertificateFolder
from stagely.txt import TxtRecord
from workflows.messages import CERTIFICATE_QUEUE

LIFE = datetime.timedelta(days=90)


def signed_by_itself(
    key_pem: bytes, names: Sequence[str], life: datetime.timedelta = LIFE, age: datetime.timedelta | None = None
) -> str:
    """A certificate of this key, `age` old, as PEM."""
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    begins = datetime.datetime.now(datetime.UTC) - (age or datetime.timedelta())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(begins + life)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@dataclass(slots=True)
class Town:
    """Authority, zone and name servers in one.

    `refuses`: what the authority says to every order's check. `foreign`: names that lie outside of the zone.
    """

    txt: dict[str, list[str]] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    refuses: str = ""
    orders: int = 0

    async def place(self, names: Sequence[str], key: bytes) -> PlacedOrder:
        self.orders += 1
        records = tuple(TxtRecord(f"_acme-challenge.{names[0]}", f"value-{self.orders}-{n}") for n in range(len(names)))
        return PlacedOrder(f"https://authority.test/order/{self.orders}", records)

    async def finish(self, url: str, names: Sequence[str], key: bytes) -> str:
        if self.refuses:
            raise AuthorityRefused(self.refuses)
        return signed_by_itself(key, names)

    async def put_txt(self, name: str, value: str) -> None:
        self.txt.setdefault(name, []).append(value)

    async def remove_txt(self, name: str, value: str) -> None:
        if name in self.foreign:
            raise DnsRejected(f"{name} does not lie in the zone")
        self.txt[name].remove(value)

    async def wait_for(self, records: Collection[TxtRecord], limit_s: float) -> None:
        assert all(record.value in self.txt[record.name] for record in records)

    async def aclose(self) -> None:
        return


@asynccontextmanager
async def certificate_worker(client: Client) -> AsyncIterator[Town]:
    """Serves the certificates' queue, with an empty folder."""
    town = Town()
    with TemporaryDirectory() as path:
        activities = CertificateActivities(CertificateFolder(Path(path)), town, lambda: town, town)
        served, intercept = certificate_activities(activities), [FailureInterceptor()]
        async with Worker(client, task_queue=CERTIFICATE_QUEUE, activities=served, interceptors=intercept):
            yield town
