"""Route 53: all values of a name are one record set, replaced as a whole.

botocore signs (SigV4), finds the credentials (environment, profile, web identity, the machine's role) and speaks the
API's XML. Nothing else of ours needs it, so only who names this provider loads it.

Source: Amazon Route 53 API reference, ChangeResourceRecordSets.
"""

from __future__ import annotations

import asyncio
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from providers.dns.base import TTL_S, quoted, relative_name
from providers.errors import CredentialsRejected, DnsRejected, ProviderError, ProviderUnavailable

CALL_LIMIT_S = 20.0
REGION = "us-east-1"  # Route 53 is one for all regions; this is the one its signatures name.
_PASSING = ("Throttling", "ThrottlingException", "PriorRequestNotComplete", "ServiceUnavailable", "InternalFailure")
_FORBIDDEN = (
    "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken",
    "UnrecognizedClientException",
)  # fmt: skip


class Route53Zone:
    """One public hosted zone of the account that the credentials belong to.

    They need route53:ListHostedZonesByName, :ListResourceRecordSets and :ChangeResourceRecordSets.
    """

    def __init__(self, zone: str, url: str = "") -> None:
        self._zone = zone
        self._url = url or None
        self._client: Any = None  # Any: botocore makes its clients' methods at run time, from descriptions.

    async def put_txt(self, name: str, value: str) -> None:
        await self._in_thread(self._change, name, quoted(value), True)

    async def remove_txt(self, name: str, value: str) -> None:
        await self._in_thread(self._change, name, quoted(value), False)

    async def aclose(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, *call: Any) -> None:  # Any: a function and its arguments.
        try:
            await asyncio.to_thread(*call)
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise CredentialsRejected(f"route53: {error}. See docs/certificates.md for where they may be.") from error
        except ClientError as error:
            raise _translated(error) from error
        except BotoCoreError as error:
            raise ProviderUnavailable(f"route53 did not answer: {error}") from error

    def _change(self, name: str, value: str, is_wanted: bool) -> None:
        """One batch, all or nothing: the set as it was is deleted, the set as it shall be is created.

        A set that somebody else changed meanwhile is not the one we name, and the whole batch is refused.
        """
        relative_name(name, self._zone)
        client = self._connected()
        zone_id = self._zone_id(client)
        old = self._record_set(client, zone_id, name)
        before = [record["Value"] for record in old.get("ResourceRecords", [])] if old else []
        after = [one for one in before if one != value] + ([value] if is_wanted else [])
        if (value in before) == is_wanted:
            return
        if old and "AliasTarget" in old:
            raise DnsRejected(f"route53 has an alias at TXT {name}, which can hold no value of ours: remove it")
        changes = [{"Action": "DELETE", "ResourceRecordSet": old}] if old else []
        if after:
            same = old or {"Name": name, "Type": "TXT", "TTL": TTL_S}  # A set that is there is somebody else's too.
            new = {**same, "ResourceRecords": [{"Value": one} for one in after]}
            changes.append({"Action": "CREATE", "ResourceRecordSet": new})
        client.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": changes})

    def _connected(self) -> Any:  # Any: as above.
        if self._client is None:
            # Nothing is sent twice here: the activity asks again, and looks first.
            once = Config(connect_timeout=CALL_LIMIT_S, read_timeout=CALL_LIMIT_S, retries={"total_max_attempts": 1})
            session = botocore.session.get_session()
            self._client = session.create_client("route53", region_name=REGION, endpoint_url=self._url, config=once)
        return self._client

    def _zone_id(self, client: Any) -> str:  # Any: as above.
        """A private zone of the same name is another one: nobody outside sees its records."""
        answer = client.list_hosted_zones_by_name(DNSName=self._zone)
        for found in answer["HostedZones"]:
            if found["Name"] == f"{self._zone}." and not found["Config"]["PrivateZone"]:
                return str(found["Id"]).removeprefix("/hostedzone/")
        raise DnsRejected(f"route53 has no public hosted zone {self._zone} in this account: set STAGELY_DNS_ZONE")

    def _record_set(self, client: Any, zone_id: str, name: str) -> dict[str, Any] | None:  # Any: as above.
        """The name's TXT set as it is. The API lists from that name on, so the first may be another's."""
        answer = client.list_resource_record_sets(
            HostedZoneId=zone_id, StartRecordName=name, StartRecordType="TXT", MaxItems="1"
        )
        for found in answer["ResourceRecordSets"]:
            if found["Name"] == f"{name}." and found["Type"] == "TXT":
                return dict(found)
        return None


def _translated(error: ClientError) -> ProviderError:
    answer = error.response
    code, status = answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]
    what = f"route53 answered {error.operation_name} with {status} {code}: {answer['Error'].get('Message', '')[:300]}"
    if code in _FORBIDDEN:
        return CredentialsRejected(f"{what}. docs/certificates.md lists the rights that it needs.")
    if code in _PASSING or code == "InvalidChangeBatch" or status >= 500:
        return ProviderUnavailable(what)  # InvalidChangeBatch: somebody was quicker.
    return DnsRejected(what)
