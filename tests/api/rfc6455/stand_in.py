"""The gateway's real socket on a real port under uvloop; behind it stands one who sends every text back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from api.gateway.turns import Turns
from api.gateway.websocket import AgentSocket


class Echo:
    """An owner of sockets. A text "close CODE REASON" makes it close instead."""

    def opened(self, socket: AgentSocket) -> None:
        """Nothing to keep."""

    def is_stranger(self, socket: AgentSocket) -> bool:
        return False

    def received(self, socket: AgentSocket, text: str, size_bytes: int) -> None:
        word, _, rest = text.partition(" ")
        if word == "close":
            code, _, reason = rest.partition(" ")
            socket.close(int(code), reason)
        else:
            socket.send(text)

    def closed(self, socket: AgentSocket) -> None:
        """Nothing was kept."""

    def failed(self, socket: AgentSocket, reason: str) -> None:
        """Nobody reads it."""

    def is_healthy(self) -> bool:
        return True

    def is_crowded(self) -> bool:
        return False


@contextmanager
def listening() -> Iterator[int]:
    """The port of a listener in a thread of its own, so that tests may block."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(_listen(), loop).result()
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen() -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: AgentSocket(Echo(), Turns()), "127.0.0.1", 0)
