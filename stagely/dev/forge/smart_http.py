"""git's smart HTTP at /{owner}/{repo}.git: fetch with a token that may read, push with the admin token only."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stagely.dev.forge.parts import Parts
from stagely.dev.forge.refusal import Refused
from stagely.dev.forge.rows import Repository

SERVICES = {"git-upload-pack": "upload-pack", "git-receive-pack": "receive-pack"}
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate", "Pragma": "no-cache"}
_ASK = {"WWW-Authenticate": 'Basic realm="GitHub"'}


class GitRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        repo = "/{owner}/{repo}.git"
        return [
            Route(f"{repo}/info/refs", self.advertise),
            Route(f"{repo}/git-upload-pack", self.fetch, methods=["POST"]),
            Route(f"{repo}/git-receive-pack", self.push, methods=["POST"]),
        ]

    async def advertise(self, request: Request) -> Response:
        name = request.query_params.get("service", "")
        if name not in SERVICES:
            return PlainTextResponse("Please upgrade your git client.\n", 403)  # The dumb protocol; GitHub's words.
        try:
            repository = self._repository(request, SERVICES[name])
        except Refused as refused:
            return _refusal(refused)
        protocol = request.headers.get("git-protocol", "")
        refs = await self._parts.git.advertise(repository.full_name, SERVICES[name], protocol)
        line = f"# service={name}\n".encode()
        head = b"%04x%b0000" % (len(line) + 4, line)  # A pkt-line and a flush, see gitprotocol-http.
        return Response(head + refs, media_type=f"application/x-{name}-advertisement", headers=_NO_CACHE)

    async def fetch(self, request: Request) -> Response:
        return self._conversation(request, "upload-pack")

    async def push(self, request: Request) -> Response:
        return self._conversation(request, "receive-pack")

    def _conversation(self, request: Request, service: str) -> Response:
        try:
            return _Conversation(self._parts, self._repository(request, service), service)
        except Refused as refused:
            return _refusal(refused)

    def _repository(self, request: Request, service: str) -> Repository:
        asker, repository = self._parts.asker(request), self._parts.known(request)
        asker.require(repository, "contents", "read")
        if service == "receive-pack" and not asker.is_person:
            raise Refused(403, f"Write access to repository not granted: {repository.full_name}")
        return repository


class _Conversation(Response):
    """One request to git, streamed both ways; after a push, open pull requests follow before the client is told."""

    def __init__(self, parts: Parts, repository: Repository, service: str) -> None:
        super().__init__(media_type=f"application/x-git-{service}-result", headers=_NO_CACHE)
        del self.headers["content-length"]  # Starlette set it for an empty body; this one's length is not known.
        self._parts = parts
        self._repository = repository
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)

        async def emit(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await self._parts.git.converse(
                self._repository.full_name,
                self._service,
                request.headers.get("git-protocol", ""),
                _unpacked(request),
                emit,
            )
        finally:
            # Also after a push that broke off: some of its branches may have moved.
            if self._service == "receive-pack":
                await self._parts.pulls.look(self._repository)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unpacked(request: Request) -> AsyncIterator[bytes]:
    """The body; git compresses longer requests."""
    if request.headers.get("content-encoding") != "gzip":
        async for chunk in request.stream():
            yield chunk
        return
    unpacker = zlib.decompressobj(wbits=31)  # 31: with gzip's header.
    async for chunk in request.stream():
        yield unpacker.decompress(chunk)
    yield unpacker.flush()


def _refusal(refused: Refused) -> Response:
    """Plain text, which git shows to the person; 401 makes it ask for a password."""
    text = "Repository not found." if refused.status == 404 else refused.message
    headers = _ASK if refused.status == 401 else None
    return PlainTextResponse(f"{text}\n", refused.status, headers=headers)
