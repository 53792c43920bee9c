"""DigitalOcean's DNS: every TXT value is a record of its own, with an id.

Source: DigitalOcean API reference, Domain Records (github.com/digitalocean/openapi).
"""

from __future__ import annotations

from providers.dns.base import TTL_S, relative_name
from providers.dns.rest import Json, RestApi
from providers.errors import DnsRejected

URL = "https://api.digitalocean.com"
PAGE = 200  # The most that the API gives at once; a name has two values, or the leftovers of a few runs.


class DigitalOceanZone:
    """One domain of an account. The token needs the scopes domain:read, :create, :update and :delete."""

    def __init__(self, zone: str, token: str, url: str = URL) -> None:
        self._zone = zone
        self._api = RestApi("digitalocean", url, token)

    async def put_txt(self, name: str, value: str) -> None:
        if any(record["data"] == value for record in await self._records(name)):
            return
        # The description wants `flags` and `tag` of a TXT record, and its own example says null.
        record = {"type": "TXT", "name": relative_name(name, self._zone), "data": value, "ttl": TTL_S}
        await self._api.call("POST", self._path, {**record, "flags": None, "tag": None})

    async def remove_txt(self, name: str, value: str) -> None:
        for record in await self._records(name):
            if record["data"] == value:
                await self._api.call("DELETE", f"{self._path}/{record['id']}")

    async def aclose(self) -> None:
        await self._api.aclose()

    @property
    def _path(self) -> str:
        return f"/v2/domains/{self._zone}/records"

    async def _records(self, name: str) -> list[Json]:
        relative_name(name, self._zone)
        query = {"type": "TXT", "name": name, "per_page": str(PAGE)}
        answer = await self._api.call("GET", self._path, query=query)
        if answer is None:
            raise DnsRejected(f"digitalocean has no domain {self._zone} in this account: set STAGELY_DNS_ZONE")
        records: list[Json] = answer["domain_records"]
        return records
