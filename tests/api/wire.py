"""An agent as the gateway sees it: a real WebSocket client that speaks agent/protocol.py, one message at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from agent.connection import LONGEST_WAIT_S
from agent.protocol import (
    CONNECT_PATH,
    NONCE_HEADER,
    Hello,
    Message,
    ToAgent,
    Welcome,
    decode_to_agent,
    encode,
    signed_bytes,
)  # fmt: skip

DEADLINE_S = 20.0  # Far above anything here; a test that needs it has failed.
REDIAL_S = DEADLINE_S + LONGEST_WAIT_S  # An agent that found nobody for long waits that long before it dials again.

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class WireAgent:
    """One socket."""

    socket: ClientConnection

    @property
    def nonce(self) -> str:
        assert self.socket.response is not None
        return self.socket.response.headers[NONCE_HEADER]

    async def greet(self, identity: Identity) -> None:
        await self.say(identity.hello(self.nonce))

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send(encode(message))

    async def hear(self, *kinds: type[M]) -> M:
        """The next message, which must be of one of these kinds."""
        async with asyncio.timeout(DEADLINE_S):
            frame = await self.socket.recv()
        assert isinstance(frame, str)
        message = decode_to_agent(frame)
        assert isinstance(message, kinds), f"expected {kinds}, got {message}"
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
    boot_id: str = "boot-1"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    session: str = ""
    next_session: str = field(default_factory=lambda: secrets.token_hex(32))

    def hello(self, nonce: str) -> Hello:
        """Signed for the connection that was given this nonce."""
        said = Hello(self.vm_id, self.public_key, "", self.boot_id, self.session, self.next_session, self.token)
        return replace(said, signature=self.key.sign(signed_bytes(said, nonce)).hex())

    @property
    def public_key(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()

    def welcomed(self) -> None:
        """As an agent does behind each WELCOME."""
        self.session, self.next_session = self.next_session, secrets.token_hex(32)

    def copied(self) -> Identity:
        """All that the VM's disk holds, in other hands."""
        return replace(self)


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
        await agent.greet(identity)
        welcome = await agent.hear(Welcome)
        identity.welcomed()
        yield agent, welcome
