"""aiohttp as an origin: notes every request and answers with it. Runs under the distribution's interpreter."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import Any

web: Any = importlib.import_module("aiohttp.web")  # Debian's package: unknown to this repository.
RECORD = os.open(os.environ["RECORD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


async def echo(request: Any) -> Any:
    body = await request.read()
    seen = f"{request.method} {request.raw_path} HTTP/1.1\t{len(body)}\n".encode("latin-1")
    os.write(RECORD, seen)
    return web.Response(body=seen, headers={"X-Body-Length": str(len(body))})


async def serve() -> Any:
    return web.Server(echo)


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(serve())
    loop.run_until_complete(loop.create_server(server, "127.0.0.1", int(sys.argv[1])))
    loop.run_forever()
