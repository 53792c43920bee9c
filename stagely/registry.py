"""The image registry's API (OCI distribution specification 1.1): manifests read, merged, deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from stagely.errors import RegistryRefused, RegistryUnavailable

CALL_TIMEOUT_S = 10.0  # A manifest is a few KB, answered in milliseconds also while layers are pushed.
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = ", ".join(
    (
        INDEX,
        MANIFEST,
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry by its base URL, such as http://127.0.0.1:8003."""

    client: httpx.AsyncClient

    async def merge(self, repository: str, digests: Sequence[str]) -> str:
        """Write one index over per-architecture manifests of the same repository; gives its digest."""
        entries = [await self._entry(repository, digest) for digest in digests]
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        url = f"/v2/{repository}/manifests/{digest}"
        await self._call("PUT", url, content=body, headers={"Content-Type": INDEX})
        return digest

    async def tags(self, repository: str) -> list[str]:
        """All tags; none for a repository that does not exist."""
        answer = await self._call("GET", f"/v2/{repository}/tags/list", missing_is_fine=True)
        return list(answer.json().get("tags") or []) if answer.status_code == 200 else []

    async def digest_of(self, repository: str, reference: str) -> str | None:
        """The digest that a tag or digest resolves to, or None when there is no such manifest."""
        answer = await self._call("HEAD", f"/v2/{repository}/manifests/{reference}", missing_is_fine=True)
        return answer.headers.get("docker-content-digest") if answer.status_code == 200 else None

    async def delete(self, repository: str, digest: str) -> None:
        """Delete one manifest, with the tags on it. Not there: success."""
        await self._call("DELETE", f"/v2/{repository}/manifests/{digest}", missing_is_fine=True)

    async def _entry(self, repository: str, digest: str) -> dict[str, Any]:  # Any: JSON.
        answer = await self._call("GET", f"/v2/{repository}/manifests/{digest}")
        manifest = answer.json()
        config = await self._call("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}")
        return {
            "mediaType": manifest.get("mediaType", MANIFEST),
            "digest": digest,
            "size": len(answer.content),
            "platform": {"os": config.json()["os"], "architecture": config.json()["architecture"]},
        }

    async def _call(
        self, method: str, url: str, *, missing_is_fine: bool = False, content: bytes | None = None, **kwargs: Any
    ) -> httpx.Response:  # Any: httpx's keyword arguments.
        headers = {"Accept": _ACCEPT, **kwargs.get("headers", {})}
        try:
            answer = await self.client.request(method, url, headers=headers, content=content, follow_redirects=True)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"the registry did not answer {method} {url}: {error!r}. Is it running?"
            ) from error
        if answer.status_code >= 500:
            raise RegistryUnavailable(f"the registry answered {answer.status_code} to {method} {url}")
        if answer.status_code >= 400 and not (missing_is_fine and answer.status_code == 404):
            raise RegistryRefused(f"the registry refused {method} {url}: {answer.status_code} {answer.text[:200]}")
        return answer


def connect(base_url: str) -> Registry:
    """A client with deadlines; close it with `registry.client.aclose()`."""
    return Registry(httpx.AsyncClient(base_url=base_url, timeout=CALL_TIMEOUT_S))
