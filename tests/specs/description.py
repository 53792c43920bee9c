"""A provider's own description of its API as the judge of what is sent to it and of what a fake answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator
from referencing import Registry
from referencing.jsonschema import DRAFT4

Json = Any  # Any JSON value.


class Description:
    """An OpenAPI 3.0 file. Bodies of errors have the shape of its component `error`."""

    def __init__(self, file: Path) -> None:
        self._document = yaml.safe_load(file.read_text())

    def request_complaints(self, method: str, path: str, query: dict[str, str], body: Json) -> list[str]:
        """What is wrong with a request; `body` None is none."""
        found = self._operation(method, path)
        if found is None:
            return [f"{method} {path} is not described"]
        template, operation = found
        given = {**_path_values(template, path), **query}
        known = {one["name"]: one["schema"] for one in operation.get("parameters", ())}
        complaints = [f"{method} {path}: unknown parameter {name}" for name in given if name not in known]
        for name in given.keys() & known.keys():
            complaints += self._check(f"{method} {path} {name}", known[name], _typed(given[name], known[name]))
        if ("requestBody" in operation) != (body is not None):
            return [*complaints, f"{method} {path}: a body where none belongs, or none where one does"]
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            complaints += self._check(f"{method} {path} body", schema, body, is_request=True)
        return complaints

    def answer_complaints(self, method: str, path: str, status: int, body: Json) -> list[str]:
        found = self._operation(method, path)
        if status >= 400 or found is None:
            return self._check(f"{method} {path} {status}", {"$ref": "#/components/schemas/error"}, body)
        content = found[1]["responses"][str(status)].get("content")
        if content is None:
            return [] if body is None else [f"{method} {path}: a body with {status}"]
        return self._check(f"{method} {path} {status}", content["application/json"]["schema"], body)

    def _operation(self, method: str, path: str) -> tuple[str, Json] | None:
        for template, operations in self._document["paths"].items():
            if re.fullmatch(_pattern(template), path) and method.lower() in operations:
                return template, operations[method.lower()]
        return None

    def _check(self, what: str, schema: Json, value: Json, *, is_request: bool = False) -> list[str]:
        document = DRAFT4.create_resource({**self._document, "judged": schema})
        registry: Registry[Json] = Registry().with_resource("urn:api", document)
        kind = OAS30WriteValidator if is_request else OAS30ReadValidator
        errors = kind({"$ref": "urn:api#/judged"}, registry=registry).iter_errors(value)
        return [f"{what}: {'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in errors]


def _pattern(template: str) -> str:
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template))


def _path_values(template: str, path: str) -> dict[str, str]:
    matched = re.fullmatch(_pattern(template), path)
    assert matched is not None
    return matched.groupdict()


def _typed(text: str, schema: Json) -> str | int:
    return int(text) if schema["type"] == "integer" and text.isdecimal() else text
