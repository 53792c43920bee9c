"""Looks at a zone's own name servers, without any cache between: what they say is what a certificate authority sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver
from dns.rdtypes.txtbase import TXTBase

from providers.errors import ProviderUnavailable
from stagely.txt import TxtRecord

QUERY_LIMIT_S = 5.0
POLL_S = 2.0
PORT = 53

Server = tuple[str, int]
"""An address and a port."""


def servers_of(text: str) -> list[Server]:
    """Those of a comma-separated host:port list. Raises RuntimeError when it is none."""
    found = [one.strip().rpartition(":") for one in text.split(",") if one.strip()]
    if not all(host and port.isdecimal() for host, _, port in found):
        raise RuntimeError(f"STAGELY_DNS_NAMESERVERS must be host:port,host:port..., got {text!r}")
    return [(host, int(port)) for host, _, port in found]


class Nameservers:
    """Those of one zone; `servers` in their place where the zone's own cannot be reached (a closed port 53)."""

    def __init__(
        self,
        zone: str,
        servers: Sequence[Server] = (),
        resolver: dns.asyncresolver.Resolver | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._zone = zone
        self._servers = servers
        self._resolver = resolver
        self._poll_s = poll_s

    async def wait_for(self, records: Collection[TxtRecord], limit_s: float) -> None:
        """Return once every server has all of these. Raises ProviderUnavailable when one does not within the limit."""
        deadline = time.monotonic() + limit_s
        servers = self._servers or await self._own()
        while missing := await self._missing(servers, records):
            if time.monotonic() > deadline:
                raise ProviderUnavailable(f"not seen within {limit_s:.0f} s: {'; '.join(sorted(missing))}")
            await asyncio.sleep(self._poll_s)

    async def _missing(self, servers: Sequence[Server], records: Collection[TxtRecord]) -> list[str]:
        names = sorted({record.name for record in records})
        asked = [(server, name) for server in servers for name in names]
        answers = await asyncio.gather(*(_txt(server, name) for server, name in asked))
        return [
            f"TXT {name} at {server[0]}" + (f" ({values})" if isinstance(values, str) else "")
            for (server, name), values in zip(asked, answers, strict=True)
            if isinstance(values, str) or not {r.value for r in records if r.name == name} <= values
        ]

    async def _own(self) -> list[Server]:
        """IPv4 addresses, of which every public zone has some; a machine without IPv6 could not ask the others.

        A name server without any is left out, as it is by whoever resolves by IPv4.
        """
        try:
            resolver = self._resolver or dns.asyncresolver.Resolver()
            names = [str(one.target) for one in await resolver.resolve(self._zone, "NS", lifetime=QUERY_LIMIT_S)]
            addresses = [one for name in names for one in await _addresses(resolver, name)]
        except dns.exception.DNSException as error:
            raise ProviderUnavailable(f"the name servers of {self._zone} were not found: {error}") from error
        if not addresses:
            raise ProviderUnavailable(f"no name server of {self._zone} has an IPv4 address: {', '.join(sorted(names))}")
        return [(address, PORT) for address in addresses]


async def _addresses(resolver: dns.asyncresolver.Resolver, name: str) -> list[str]:
    try:
        return [str(one.address) for one in await resolver.resolve(name, "A", lifetime=QUERY_LIMIT_S)]
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return []


async def _txt(server: Server, name: str) -> set[str] | str:
    """The name's TXT values there, or why they could not be asked for."""
    query = dns.message.make_query(name, "TXT")
    try:
        answer, _ = await dns.asyncquery.udp_with_fallback(query, server[0], timeout=QUERY_LIMIT_S, port=server[1])
    except (dns.exception.DNSException, OSError) as error:
        return str(error) or type(error).__name__
    texts = [one for rrset in answer.answer if rrset.rdtype == dns.rdatatype.TXT for one in rrset]
    return {b"".join(one.strings).decode("ascii", "replace") for one in texts if isinstance(one, TXTBase)}
