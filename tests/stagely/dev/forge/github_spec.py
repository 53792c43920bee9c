"""GitHub's own OpenAPI description as the judge of everything that goes over the forge's REST."""

from __future__ import annotations

import functools
import gzip
import json
import re
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30ReadValidator, oas30_format_checker
from referencing import Registry
from referencing.jsonschema import DRAFT4

SPEC = Path(__file__).parents[3] / "specs" / "github.json.gz"
Json = Any  # Any JSON value.


@functools.cache
def _spec() -> Json:
    return json.loads(gzip.decompress(SPEC.read_bytes()))


def complaints(method: str, path: str, status: int, sent: Json, answered: Json) -> list[str]:
    """What GitHub's description finds wrong with one call; `sent` or `answered` None is no body."""
    operation = _operation(method, path)
    if operation is None:
        return [] if status == 404 else [f"{method} {path} is not in GitHub's description"]
    found = []
    if sent is not None and status < 400:
        content = operation.get("requestBody", {}).get("content", {})
        found += _check(f"{method} {path} request", content["application/json"]["schema"], sent)
    if answered is not None:
        found += _check(f"{method} {path} answer {status}", _answer_schema(operation, status), answered)
    return found


def webhook_complaints(action: str, body: Json) -> list[str]:
    operation = _spec()["x-webhooks"][f"pull-request-{action}"]["post"]
    return _check(action, operation["requestBody"]["content"]["application/json"]["schema"], body)


def _operation(method: str, path: str) -> Json | None:
    for template, operations in _spec()["paths"].items():
        # Only a file's path and a branch's name hold slashes.
        pattern = re.sub(r"\\{(\w+)\\}", lambda m: ".+" if m[1] in ("path", "ref") else "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return operations[method.lower()]
    return None


def _answer_schema(operation: Json, status: int) -> Json:
    answer = operation["responses"].get(str(status))
    if answer is None:  # GitHub does not list every refusal; all of them have this shape.
        return {"$ref": "#/components/schemas/basic-error"} if status >= 400 else {"not": {}}
    if "$ref" in answer:
        answer = _spec()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer.get("content", {}).get("application/json", {}).get("schema", {})


def _check(what: str, schema: Json, value: Json) -> list[str]:
    # The schema refers to the description's components by "#/components/...": it must be part of the same document.
    document = DRAFT4.create_resource({**_spec(), "judged": schema})
    registry: Registry[Json] = Registry().with_resource("urn:github", document)
    validator = OAS30ReadValidator(
        {"$ref": "urn:github#/judged"}, registry=registry, format_checker=oas30_format_checker
    )
    return [f"{what}: {'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(value)]
