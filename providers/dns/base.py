"""What every DNS provider promises: TXT values of one zone, put and removed one by one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from providers.errors import DnsRejected
from stagely.txt import TxtRecord

TTL_S = 60  # The least that Hetzner takes; a value lives for minutes.


class DnsZone(Protocol):
    """One zone in one account. All methods raise only providers.errors; each call has its own deadline.

    `name` is fully qualified, lower case and without a dot at its end. Values of one name stand beside each other:
    what is not named here is never touched, whoever put it there.
    """

    async def put_txt(self, name: str, value: str) -> None:
        """Have this value among the name's TXT records. There already: nothing changes.

        Raises:
            CredentialsRejected, DnsRejected: retrying will not help, a person must act.
            ProviderUnavailable: try again.
        """
        ...

    async def remove_txt(self, name: str, value: str) -> None:
        """Have this value no longer among the name's TXT records. Not there: nothing changes. Raises as `put_txt`."""
        ...

    async def aclose(self) -> None:
        """Free connections; the zone is not used afterwards."""
        ...


class Visibility(Protocol):
    """Whether the world sees what was put into a zone."""

    async def wait_for(self, records: Collection[TxtRecord], limit_s: float) -> None:
        """Return once it sees all of these. Raises ProviderUnavailable when it does not within the limit."""
        ...


def relative_name(name: str, zone: str) -> str:
    """`name` as seen from inside the zone, "@" for the zone itself. Raises DnsRejected when it lies outside."""
    if name == zone:
        return "@"
    if not name.endswith(f".{zone}"):
        raise DnsRejected(f"{name} does not lie in the zone {zone}: set STAGELY_DNS_ZONE to the zone that holds it")
    return name.removesuffix(f".{zone}")


def quoted(value: str) -> str:
    """A TXT value as zone files have it. Ours are base64url: nothing in them wants escaping."""
    return f'"{value}"'
