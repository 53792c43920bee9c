"""GitHub's REST for the files of a commit."""

from __future__ import annotations

import posixpath

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stagely.dev.forge.git import DEFAULT_BRANCH, Entry
from stagely.dev.forge.parts import Parts
from stagely.dev.forge.refusal import Refused, not_found
from stagely.dev.forge.rows import Repository
from stagely.dev.forge.shapes import Json

LINKS_FOLLOWED = 5  # A ring of symlinks ends somewhere.


class ContentRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/repos/{owner}/{repo}/contents", self.contents),
            Route("/repos/{owner}/{repo}/contents/{path:path}", self.contents),
        ]

    async def contents(self, request: Request) -> Response:
        repository = self._parts.repository(request, "contents")
        ref = request.query_params.get("ref", DEFAULT_BRANCH)
        path = request.path_params.get("path", "").strip("/")
        sha = await self._parts.git.commit(repository.full_name, ref)
        if sha is None:
            raise Refused(404, f"No commit found for the ref {ref}")
        entry = await self._parts.git.entry(repository.full_name, sha, path)
        if entry is None:
            raise not_found()
        return JSONResponse(await self._shown(repository, sha, entry))

    async def _shown(self, repository: Repository, sha: str, entry: Entry) -> Json | list[Json]:
        """A symlink to a file of the repository is shown as that file (GitHub docs, "Get repository content")."""
        shapes, git, name = self._parts.shapes, self._parts.git, repository.full_name
        for _ in range(LINKS_FOLLOWED):
            if entry.kind != "symlink":
                break
            target = (await git.blob(name, entry.sha)).decode(errors="replace")
            found = await self._target(name, sha, entry, target)
            if found is None:
                return shapes.symlink(repository, sha, entry, target)
            entry = found
        if entry.kind == "tree":
            return [shapes.listed(repository, sha, e) for e in await git.folder(name, sha, entry.path)]
        if entry.kind == "blob":
            return shapes.file(repository, sha, entry, await git.blob(name, entry.sha))
        return shapes.listed(repository, sha, entry)

    async def _target(self, name: str, sha: str, link: Entry, target: str) -> Entry | None:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), target))
        if path.startswith(("/", "..")):
            return None
        found = await self._parts.git.entry(name, sha, path)
        return found if found is not None and found.kind in ("blob", "symlink") else None
