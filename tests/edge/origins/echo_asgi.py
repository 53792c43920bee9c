"""An ASGI application that notes every request and answers with it; served by uvicorn, whose parser is h11."""

from __future__ import annotations

import os
from typing import Any

RECORD = os.open(os.environ["RECORD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


async def app(scope: Any, receive: Any, send: Any) -> None:  # ASGI's own types are dicts of anything.
    if scope["type"] != "http":
        return
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    seen = b"%b %b%b HTTP/1.1\t%d\n" % (scope["method"].encode(), scope["raw_path"], query, length)
    os.write(RECORD, seen)
    fields = [(b"x-body-length", b"%d" % length), (b"content-length", b"%d" % len(seen))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": seen})
