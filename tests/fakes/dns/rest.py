"""What the fakes of DigitalOcean and Hetzner share: JSON, a bearer token, and a description that judges all of it."""

from __future__ import annotations

import abc
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.fakes.dns.server import Answer, FakeDns, Request, Seen
from tests.specs.description import Description

SPECS = Path(__file__).parents[2] / "specs"
TOKEN = "dns-token-of-the-tests"

Json = Any  # Any JSON value.


class FakeRest(FakeDns):
    description: Description

    def __init__(self, zone: str, seen: Seen = lambda name, values: None) -> None:
        super().__init__(zone, seen)
        self.is_readonly = False

    def is_let_in(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def answer(self, request: Request) -> Answer:
        body = json.loads(request.body) if request.body else None
        wrong = self.description.request_complaints(request.method, request.path, request.query, body)
        self.complaints += wrong
        if wrong:
            return self._told(request, 422, json.loads(self.problem(422, wrong[0])))
        if self.is_readonly and request.method != "GET":
            return self._told(request, 403, json.loads(self.problem(403, "this token may only read")))
        return self._told(request, *self.act(request, body))

    def refused(self) -> Answer:
        return Answer(HTTPStatus.UNAUTHORIZED, self.problem(401, "unable to authenticate"))

    @abc.abstractmethod
    def act(self, request: Request, body: Json) -> tuple[int, Json]:
        """The status and the body of the answer, None for none."""

    def _told(self, request: Request, status: int, body: Json) -> Answer:
        self.complaints += self.description.answer_complaints(request.method, request.path, status, body)
        return Answer(status, b"" if body is None else json.dumps(body).encode())
