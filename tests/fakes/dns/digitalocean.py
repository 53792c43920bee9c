"""DigitalOcean's domain records, as its description and its documentation say."""

from __future__ import annotations

import itertools
import json

from tests.fakes.dns.rest import SPECS, FakeRest, Json
from tests.fakes.dns.server import Request, Seen
from tests.specs.description import Description

MIN_TTL_S = 30


class FakeDigitalOcean(FakeRest):
    """Every value is a record with an id; nothing keeps two equal ones from being made."""

    description = Description(SPECS / "digitalocean_dns.yaml")

    def __init__(self, zone: str, seen: Seen = lambda name, values: None) -> None:
        super().__init__(zone, seen)
        self._records: dict[int, Json] = {}
        self._ids = itertools.count(28_448_429)

    def act(self, request: Request, body: Json) -> tuple[int, Json]:
        _, _, _, zone, *rest = request.path.split("/")
        if zone != self.zone:
            return 404, json.loads(self.problem(404, "The resource you were accessing could not be found."))
        if request.method == "POST":
            return self._create(body)
        if request.method == "DELETE":
            return self._delete(int(rest[1]))
        found = [self._shown(one) for one in self._records.values() if self._full(one) == request.query["name"]]
        return 200, {"domain_records": found, "links": {}, "meta": {"total": len(found)}}

    def problem(self, status: int, text: str) -> bytes:
        return json.dumps({"id": f"error_{status}", "message": text}).encode()

    def _create(self, body: Json) -> tuple[int, Json]:
        if body.get("ttl", 1800) < MIN_TTL_S:
            return 422, json.loads(self.problem(422, "TTL must be at least 30"))
        record = {**body, "id": next(self._ids)}
        self._records[record["id"]] = record
        self._publish(self._full(record))
        return 201, {"domain_record": self._shown(record)}

    def _delete(self, record_id: int) -> tuple[int, Json]:
        record = self._records.pop(record_id, None)
        if record is None:
            return 404, json.loads(self.problem(404, "The resource you were accessing could not be found."))
        self._publish(self._full(record))
        return 204, None

    def _publish(self, name: str) -> None:
        self.change(name, [one["data"] for one in self._records.values() if self._full(one) == name])

    def _full(self, record: Json) -> str:
        return self.zone if record["name"] == "@" else f"{record['name']}.{self.zone}"

    def _shown(self, record: Json) -> Json:
        return {"priority": None, "port": None, "weight": None, **record}
