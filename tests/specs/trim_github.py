"""Makes github.json.gz: of GitHub's OpenAPI description only the paths and webhooks that the local forge has.

`python tests/specs/trim_github.py api.github.com.json.gz`; NOTICE.md says where that file comes from.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

PATHS = {
    "/app": ["get"],
    "/app/installations/{installation_id}": ["get"],
    "/app/installations/{installation_id}/access_tokens": ["post"],
    "/repos/{owner}/{repo}": ["get"],
    "/repos/{owner}/{repo}/collaborators/{username}/permission": ["get"],
    "/repos/{owner}/{repo}/commits/{ref}/status": ["get"],
    "/repos/{owner}/{repo}/commits/{ref}/statuses": ["get"],
    "/repos/{owner}/{repo}/contents/{path}": ["get"],
    "/repos/{owner}/{repo}/installation": ["get"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ["get", "patch", "delete"],
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ["get", "post"],
    "/repos/{owner}/{repo}/pulls": ["get", "post"],
    "/repos/{owner}/{repo}/pulls/{pull_number}": ["get", "patch"],
    "/repos/{owner}/{repo}/statuses/{sha}": ["post"],
}
WEBHOOKS = ["opened", "synchronize", "closed", "reopened"]
# "discriminator" besides: GitHub's mapping of a file's contents names a list "array", which no validator knows.
PROSE = {"discriminator", "description", "example", "examples", "x-github", "externalDocs", "summary", "tags"}

Json = Any  # Any JSON value.


def trimmed(full: Json) -> Json:
    """The chosen operations and every component that they refer to, directly or not; without prose."""
    paths = {p: {m: _without_prose(full["paths"][p][m]) for m in methods} for p, methods in PATHS.items()}
    hooks = {f"pull-request-{a}": _without_prose(full["x-webhooks"][f"pull-request-{a}"]) for a in WEBHOOKS}
    components: dict[str, dict[str, Json]] = {}
    queue = _references([paths, hooks])
    while queue:
        kind, name = queue.pop()
        if name not in components.setdefault(kind, {}):
            components[kind][name] = _without_prose(full["components"][kind][name])
            queue |= _references(components[kind][name])
    head = {"openapi": full["openapi"], "info": {"title": full["info"]["title"], "version": full["info"]["version"]}}
    servers = [{"url": "https://api.github.com"}]
    return {**head, "servers": servers, "paths": paths, "x-webhooks": hooks, "components": components}


def _without_prose(value: Json, *, names_are_data: bool = False) -> Json:
    """`properties` maps names that GitHub chose: a field called "description" there is no prose."""
    if isinstance(value, list):
        return [_without_prose(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {
        k: _without_prose(v, names_are_data=k == "properties" and not names_are_data)
        for k, v in value.items()
        if names_are_data or k not in PROSE or (k == "description" and "content" in value)
    }


def _references(value: Json) -> set[tuple[str, str]]:
    return set(re.findall(r'"#/components/([a-zA-Z]+)/([^"]+)"', json.dumps(value)))


def main() -> None:
    full = json.loads(gzip.decompress(Path(sys.argv[1]).read_bytes()))
    text = json.dumps(trimmed(full), sort_keys=True, separators=(",", ":")).encode()
    Path(__file__).with_name("github.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main()
