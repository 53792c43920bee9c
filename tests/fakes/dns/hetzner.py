"""Hetzner's zones and record sets, as its description says: actions run for a moment and a set lives by its records."""

from __future__ import annotations

import json

from tests.fakes.dns.rest import SPECS, FakeRest, Json
from tests.fakes.dns.server import Request, Seen
from tests.specs.description import Description


class FakeHetzner(FakeRest):
    """Each action is seen running once; what it does is seen when it is done."""

    description = Description(SPECS / "hetzner_dns.yaml")

    def __init__(self, zone: str, seen: Seen = lambda name, values: None) -> None:
        super().__init__(zone, seen)
        self._ttl: dict[str, int | None] = {}
        self._values: dict[str, list[str]] = {}
        self._running: dict[int, str] = {}
        self.fails_next_action = False
        self.refuses_removal = False

    def act(self, request: Request, body: Json) -> tuple[int, Json]:
        parts = request.path.strip("/").split("/")
        if parts[0] == "actions":
            return 200, {"action": self._ended(int(parts[1]))}
        if parts[1] != self.zone:
            return self._missing("zone")
        name = self.zone if parts[3] == "@" else f"{parts[3]}.{self.zone}"
        if request.method == "GET":
            return self._show(name, parts[3])
        return self._add(name, body) if parts[-1] == "add_records" else self._remove(name, body)

    def problem(self, status: int, text: str) -> bytes:
        return json.dumps({"error": {"code": f"error_{status}", "message": text}}).encode()

    def _show(self, name: str, relative: str) -> tuple[int, Json]:
        if name not in self._values:
            return self._missing("rrset")
        records = [{"value": value, "comment": ""} for value in self._values[name]]
        rrset: Json = {"id": f"{relative}/TXT", "name": relative, "type": "TXT", "ttl": self._ttl[name], "labels": {}}
        return 200, {"rrset": {**rrset, "protection": {"change": False}, "records": records, "zone": 42}}

    def _add(self, name: str, body: Json) -> tuple[int, Json]:
        new = [record["value"] for record in body["records"]]
        old = self._values.get(name, [])
        if not all(value.startswith('"') and value.endswith('"') for value in new):
            return 422, json.loads(self.problem(422, "TXT records must be quoted"))
        if set(new) & set(old) or (old and "ttl" in body and body["ttl"] != self._ttl[name]):
            return 422, json.loads(self.problem(422, "a value that is there, or another TTL"))
        self._ttl.setdefault(name, body.get("ttl"))
        return 201, {"action": self._begun(name, [*old, *new])}

    def _remove(self, name: str, body: Json) -> tuple[int, Json]:
        if self.refuses_removal:
            return 403, json.loads(self.problem(403, "protected"))
        gone = {record["value"] for record in body["records"]}
        if not gone <= set(self._values.get(name, [])):
            return self._missing("record")
        return 201, {"action": self._begun(name, [v for v in self._values[name] if v not in gone])}

    def _begun(self, name: str, values: list[str]) -> Json:
        action_id = len(self._running) + 1
        self._running[action_id] = name
        if not self.fails_next_action:
            self._values[name] = values
            if not values:
                del self._values[name], self._ttl[name]
        return self._shown(action_id, "running", None)

    def _ended(self, action_id: int) -> Json:
        if self.fails_next_action:
            self.fails_next_action = False
            return self._shown(action_id, "error", {"code": "action_failed", "message": "told to"})
        name = self._running[action_id]
        self.change(name, [value.strip('"') for value in self._values.get(name, [])] if name in self._values else [])
        return self._shown(action_id, "success", None)

    def _shown(self, action_id: int, status: str, error: Json) -> Json:
        at = "2026-11-26T07:00:00Z"
        ended = None if status == "running" else at
        shown = {"id": action_id, "command": "change_rrset", "status": status, "started": at, "finished": ended}
        return {**shown, "progress": 50, "resources": [{"id": 42, "type": "zone"}], "error": error}

    def _missing(self, what: str) -> tuple[int, Json]:
        return 404, json.loads(self.problem(404, f"{what} not found"))
