"""Hetzner's DNS, which is part of its Cloud API: all values of a name are one record set, changed by actions.

Source: Hetzner Cloud API reference, Zone RRSets and Zone RRSet Actions (the former DNS Console API is another one).
"""

from __future__ import annotations

import asyncio
import time

from providers.dns.base import TTL_S, quoted, relative_name
from providers.dns.rest import Json, RestApi
from providers.errors import DnsRejected, ProviderUnavailable

URL = "https://api.hetzner.cloud/v1"
ACTION_LIMIT_S = 60.0  # Of a change to one name; then it is looked at anew.
ACTION_POLL_S = 0.5


class HetznerZone:
    """One zone, in primary mode, of a project. The project's token needs to read and write."""

    def __init__(self, zone: str, token: str, url: str = URL) -> None:
        self._zone = zone
        self._api = RestApi("hetzner", url, token)

    async def put_txt(self, name: str, value: str) -> None:
        found = await self._values(name)
        if quoted(value) in (found or ()):
            return
        # A record set that is there keeps its TTL: another one is refused.
        ttl = {"ttl": TTL_S} if found is None else {}
        body = {"records": [{"value": quoted(value)}], **ttl}
        answer = await self._api.call("POST", f"{self._path(name)}/actions/add_records", body)
        if answer is None:
            raise DnsRejected(f"hetzner has no zone {self._zone} in this project: set STAGELY_DNS_ZONE")
        await self._done(answer["action"])

    async def remove_txt(self, name: str, value: str) -> None:
        if quoted(value) not in (await self._values(name) or ()):
            return
        body = {"records": [{"value": quoted(value)}]}
        answer = await self._api.call("POST", f"{self._path(name)}/actions/remove_records", body)
        if answer is not None:
            await self._done(answer["action"])

    async def aclose(self) -> None:
        await self._api.aclose()

    def _path(self, name: str) -> str:
        return f"/zones/{self._zone}/rrsets/{relative_name(name, self._zone)}/TXT"

    async def _values(self, name: str) -> list[str] | None:
        """The name's values as the API writes them, quoted; None when there is no record set (or no zone)."""
        answer = await self._api.call("GET", self._path(name))
        return None if answer is None else [record["value"] for record in answer["rrset"]["records"]]

    async def _done(self, action: Json) -> None:
        deadline = time.monotonic() + ACTION_LIMIT_S
        while action["status"] == "running":
            if time.monotonic() > deadline:
                raise ProviderUnavailable(f"hetzner's action {action['id']} runs for more than {ACTION_LIMIT_S:.0f} s")
            await asyncio.sleep(ACTION_POLL_S)
            answer = await self._api.call("GET", f"/actions/{action['id']}")
            action = {"status": "success"} if answer is None else answer["action"]
        if action["status"] == "error":
            raise ProviderUnavailable(f"hetzner's action {action['id']} failed: {action['error']}")
