"""Route 53's record sets: what comes is judged by the description of the API that botocore ships."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, Shape, StructureShape

from tests.fakes.dns.server import Answer, FakeDns, Request, Seen

KEY_ID, SECRET = "AKIDOFTHETESTS", "secret-of-the-tests"
ZONE_ID = "Z0TESTS"
XMLNS = "https://route53.amazonaws.com/doc/2013-04-01/"
SIGNED = re.compile(
    rf"AWS4-HMAC-SHA256 Credential={KEY_ID}/\d{{8}}/us-east-1/route53/aws4_request, .*Signature=[0-9a-f]{{64}}"
)

_MODEL = botocore.session.get_session().get_service_model("route53")


class FakeRoute53(FakeDns):
    """A private zone of the same name stands before the public one."""

    def __init__(self, zone: str, seen: Seen = lambda name, values: None) -> None:
        super().__init__(zone, seen)
        self.sets: dict[str, tuple[int, list[str]]] = {}
        self.aliases: set[str] = set()  # TXT names, with a dot at their end, that stand for another's values.
        self.before_change: Callable[[], None] = lambda: None

    def is_let_in(self, request: Request) -> bool:
        return SIGNED.fullmatch(request.headers.get("authorization", "")) is not None

    def refused(self) -> Answer:
        text = "The security token included in the request is invalid."
        return Answer(403, self.problem(403, text, "InvalidClientTokenId"))

    def problem(self, status: int, text: str, code: str = "Told") -> bytes:
        kind = "Sender" if status < 500 else "Receiver"
        return (
            f'<ErrorResponse xmlns="{XMLNS}"><Error><Type>{kind}</Type><Code>{code}</Code>'
            f"<Message>{escape(text)}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ).encode()

    def answer(self, request: Request) -> Answer:
        if request.path == "/2013-04-01/hostedzonesbyname":
            return self._zones()
        if request.path.rstrip("/") != f"/2013-04-01/hostedzone/{ZONE_ID}/rrset":
            return Answer(404, self.problem(404, "no such zone", "NoSuchHostedZone"))
        return self._list(request) if request.method == "GET" else self._change(request)

    def _zones(self) -> Answer:
        def zone(zone_id: str, name: str, is_private: bool) -> str:
            config = f"<Config><PrivateZone>{str(is_private).lower()}</PrivateZone></Config>"
            return (
                f"<HostedZone><Id>/hostedzone/{zone_id}</Id><Name>{name}.</Name><CallerReference>1</CallerReference>"
                f"{config}</HostedZone>"
            )

        zones = zone("Z0PRIVATE", self.zone, True) + zone(ZONE_ID, self.zone, False) + zone("Z0Z", "zz.example", False)
        return _told("ListHostedZonesByNameResponse", f"<HostedZones>{zones}</HostedZones>")

    def _list(self, request: Request) -> Answer:
        """From the asked name on, in their order, as many as were asked for."""
        start = request.query["name"].rstrip(".") + "."
        there = self.sets.keys() | self.aliases
        found = sorted(name for name in there if name >= start)[: int(request.query["maxitems"])]
        sets = "".join(_set(name, *self.sets[name]) if name in self.sets else _alias(name) for name in found)
        return _told("ListResourceRecordSetsResponse", f"<ResourceRecordSets>{sets}</ResourceRecordSets>")

    def _change(self, request: Request) -> Answer:
        self.before_change()
        root = ET.fromstring(request.body)
        shape = _MODEL.operation_model("ChangeResourceRecordSets").input_shape
        assert isinstance(shape, StructureShape)
        wrong = _complaints(root.find(f"{{{XMLNS}}}ChangeBatch"), shape.members["ChangeBatch"], "ChangeBatch")
        self.complaints += wrong
        after = dict(self.sets)
        for change in root.iter(f"{{{XMLNS}}}Change"):
            text = {one.tag.removeprefix(f"{{{XMLNS}}}"): one.text or "" for one in change.iter()}
            values = [one.text or "" for one in change.iter(f"{{{XMLNS}}}Value")]
            name, record_set = text["Name"].rstrip(".") + ".", (int(text["TTL"]), values)
            is_delete = text["Action"] == "DELETE"
            if wrong or (after.get(name) != record_set if is_delete else name in after):
                return Answer(400, self.problem(400, f"{text['Action']} {name}", "InvalidChangeBatch"))
            if is_delete:
                del after[name]
            else:
                after[name] = record_set
        self._take_over(after)
        info = "<Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-11-26T07:00:00Z</SubmittedAt>"
        return _told("ChangeResourceRecordSetsResponse", f"<ChangeInfo>{info}</ChangeInfo>")

    def _take_over(self, after: dict[str, tuple[int, list[str]]]) -> None:
        changed = {name for name in {*after, *self.sets} if after.get(name) != self.sets.get(name)}
        self.sets = after
        for name in changed:
            self.change(name.rstrip("."), [value.strip('"') for value in after.get(name, (0, []))[1]])


def _set(name: str, ttl: int, values: list[str]) -> str:
    records = "".join(f"<ResourceRecord><Value>{escape(value)}</Value></ResourceRecord>" for value in values)
    return (
        f"<ResourceRecordSet><Name>{name}</Name><Type>TXT</Type><TTL>{ttl}</TTL>"
        f"<ResourceRecords>{records}</ResourceRecords></ResourceRecordSet>"
    )


def _alias(name: str) -> str:
    target = "<HostedZoneId>Z0TESTS</HostedZoneId><DNSName>other.example.com.</DNSName>"
    return (
        f"<ResourceRecordSet><Name>{name}</Name><Type>TXT</Type>"
        f"<AliasTarget>{target}<EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget></ResourceRecordSet>"
    )


def _told(kind: str, inner: str) -> Answer:
    rest = "<IsTruncated>false</IsTruncated><MaxItems>100</MaxItems>" if kind.startswith("List") else ""
    body = f'<?xml version="1.0"?><{kind} xmlns="{XMLNS}">{inner}{rest}</{kind}>'
    return Answer(200, body.encode(), {"Content_Type": "text/xml"})


def _complaints(element: Any, shape: Shape, where: str) -> list[str]:  # Any: an XML element, or None.
    """What the description finds wrong below this element."""
    if element is None:
        return [f"{where} is missing"]
    children = {child.tag.removeprefix(f"{{{XMLNS}}}"): child for child in element}
    if isinstance(shape, StructureShape):
        unknown = [f"{where}: {name} is not described" for name in children if name not in shape.members]
        missing = [f"{where}: {name} is missing" for name in shape.required_members if name not in children]
        known = [(name, child) for name, child in children.items() if name in shape.members]
        return unknown + missing + [w for n, c in known for w in _complaints(c, shape.members[n], f"{where}.{n}")]
    if isinstance(shape, ListShape):
        return [wrong for child in element for wrong in _complaints(child, shape.member, f"{where}[]")]
    allowed = getattr(shape, "enum", None)
    return [f"{where}: {element.text!r} is not allowed"] if allowed and element.text not in allowed else []
