"""An agent as the gateway sees it: a real WebSocket client that speaks agent/protocol.py, one message at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from agent.protocol import CONNECT_PATH, Hello, Message, ToAgent, Welcome, decode_to_agent, encode

DEADLINE_S = 20.0  # Far above anything here; a test that needs it has failed.

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class WireAgent:
    """One socket."""

    socket: ClientConnection

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send(encode(message))

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        async with asyncio.timeout(DEADLINE_S):
            frame = await self.socket.recv()
        assert isinstance(frame, str)
        message = decode_to_agent(frame)
        assert isinstance(message, kind), f"expected {kind.__name__}, got {message}"
        return message

    async def hear_until(self, kind: type[M]) -> M:
        """The next message of this kind, whatever comes before."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: ToAgent = decode_to_agent(str(await self.socket.recv()))
                if isinstance(message, kind):
                    return message

    async def close_code(self) -> int:
        """Wait until the gateway closes."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed:
                assert self.socket.close_code is not None
                return self.socket.close_code


@dataclass(slots=True)
class Identity:
    """What an agent keeps over its connections."""

    vm_id: str
    token: str
    proof: str = field(default_factory=lambda: secrets.token_hex(32))
    boot_id: str = "boot-1"

    def hello(self) -> Hello:
        return Hello(agent_id=self.vm_id, proof=self.proof, boot_id=self.boot_id, token=self.token)


@asynccontextmanager
async def dial(address: tuple[str, int]) -> AsyncIterator[WireAgent]:
    """A socket that has said nothing yet."""
    url = f"ws://{address[0]}:{address[1]}{CONNECT_PATH}"
    async with connect(url, compression=None, proxy=None, ping_interval=None, close_timeout=2) as socket:
        yield WireAgent(socket)


@asynccontextmanager
async def connected(address: tuple[str, int], identity: Identity) -> AsyncIterator[tuple[WireAgent, Welcome]]:
    """A socket behind its WELCOME."""
    async with dial(address) as agent:
        await agent.say(identity.hello())
        yield agent, await agent.hear(Welcome)
