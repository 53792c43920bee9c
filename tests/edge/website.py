"""A website as a preview may be one: a page with assets, an echo by WebSocket, events, and large files both ways."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A shop</title>
<link rel="icon" href="/dot.png"><link rel="stylesheet" href="/style.css">
<script type="module" src="/main.js"></script></head>
<body><h1>A shop</h1><img src="/dot.png" alt=""><input type="file">
<a href="/large" download>Download</a></body></html>"""
STYLE = "@import '/colours.css'; h1 { font-size: 41px }"
COLOURS = "h1 { color: rgb(1, 2, 3) }"
MAIN = "import { word } from '/word.js'; document.body.dataset.word = word"
WORD = "export const word = 'said by a module'"
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ASSETS = {
    "/": ("text/html", PAGE.encode()),
    "/style.css": ("text/css", STYLE.encode()),
    "/colours.css": ("text/css", COLOURS.encode()),
    "/main.js": ("text/javascript", MAIN.encode()),
    "/word.js": ("text/javascript", WORD.encode()),
    "/dot.png": ("image/png", DOT),
}


class Website:
    """The application. `large` is the file that it offers; `resumed`: from where streams of events went on."""

    def __init__(self, large: Path) -> None:
        self.large = large
        self.resumed: list[str] = []
        self._seen: asyncio.Queue[str] = asyncio.Queue()
        assets = [Route(path, self.asset) for path in ASSETS]
        others = [
            Route("/events", self.events),
            Route("/seen/{number}", self.note_seen, methods=["POST"]),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/large", self.download),
            Route("/cookie", self.cookie),
            WebSocketRoute("/echo", self.echo),
        ]
        self.app = Starlette(routes=[*assets, *others])

    async def asset(self, request: Request) -> Response:
        kind, content = ASSETS[request.url.path]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-store"})

    async def echo(self, socket: WebSocket) -> None:
        """Sends back every message as it came; closes with the code that it is closed with."""
        await socket.accept(subprotocol=socket.scope["subprotocols"][0])
        try:
            while True:
                message = await socket.receive()
                if message.get("text") is not None:
                    await socket.send_text(message["text"])
                elif message.get("bytes") is not None:
                    await socket.send_bytes(message["bytes"])
                else:
                    break
        except WebSocketDisconnect:
            pass

    async def events(self, request: Request) -> Response:
        """Three events in each stream, numbered on, each sent when the browser has said that it saw the one before."""
        last = request.headers.get("last-event-id", "0")
        self.resumed.append(last)

        async def stream() -> AsyncIterator[str]:
            yield "retry: 1\n\n"
            for number in range(int(last) + 1, int(last) + 4):
                yield f"id: {number}\nevent: tick\ndata: {number}\n\n"
                assert await self._seen.get() == str(number)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def note_seen(self, request: Request) -> Response:
        self._seen.put_nowait(request.path_params["number"])
        return Response(status_code=204)

    async def upload(self, request: Request) -> Response:
        """The digest of what arrived."""
        digest = hashlib.sha256()
        async for piece in request.stream():
            digest.update(piece)
        return PlainTextResponse(digest.hexdigest())

    async def download(self, request: Request) -> Response:
        return FileResponse(self.large, filename="large.bin")

    async def cookie(self, request: Request) -> Response:
        """Tries to set a cookie for all previews of the domain; answers what cookies came."""
        _, _, parent = (request.url.hostname or "").partition(".")
        answer = PlainTextResponse(request.headers.get("cookie", ""))
        answer.set_cookie("session", "secret", domain=parent, secure=True)
        return answer
