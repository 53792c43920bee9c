"""A Docker Engine that answers what the agent asks, on a unix socket: containers, events, logs, and a gRPC upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
NOT_FOUND = b'HTTP/1.0 404 Not Found\r\n\r\n{"message":"No such container"}'


@dataclass(slots=True)
class FakeContainer:
    id: str
    service: str
    status: str = "running"
    address: str = "172.18.0.2"
    log: list[tuple[str, str]] = field(default_factory=list)
    ends_logs: bool = False
    health: str = ""

    def inspected(self) -> dict[str, object]:
        health = {"Health": {"Status": self.health, "Log": []}} if self.health else {}
        state = {"Status": self.status, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:01Z", "FinishedAt": "", **health}
        return {
            "Id": self.id,
            "Created": "2026-01-01T00:00:00.5Z",
            "RestartCount": 0,
            "State": state,
            "Config": {"Labels": {"com.docker.compose.service": self.service}, "Tty": False},
            "HostConfig": {"RestartPolicy": {"Name": "no"}, "NetworkMode": "net"},
            "NetworkSettings": {"Networks": {"net": {"IPAddress": self.address}}, "Ports": {}},
        }


@dataclass(slots=True)
class FakeEngine:
    """`say` adds a log line; `changed` tells whoever follows the events. `asked` are the request targets."""

    socket: Path
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    followers: list[asyncio.StreamWriter] = field(default_factory=list)
    tick: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._serve, str(self.socket)):
            yield
            for writer in self.followers:
                writer.close()

    def say(self, container: str, stamp: str, line: str) -> None:
        self.containers[container].log.append((stamp, line))
        self.tick.set()

    async def changed(self) -> None:
        for writer in self.followers:
            with contextlib.suppress(ConnectionError):  # Whoever followed may have been killed.
                writer.write(b'{"Type":"container","Action":"start"}\n')
                await writer.drain()

    def end_containers(self) -> None:
        """Nobody's log is followed any more."""
        for container in self.containers.values():
            container.status = "exited"
        self.tick.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.decode().split(" ", 2)
        self.asked.append(target)
        if method == "POST" and target == "/grpc":
            await self._grpc(reader, writer)
        elif target.startswith("/events"):
            writer.write(HEAD)
            self.followers.append(writer)
            return
        elif "/logs?" in target:
            await self._logs(target, writer)
        else:
            writer.write(self._answer(target))
        writer.close()

    def _answer(self, target: str) -> bytes:
        path = urlsplit(target).path
        if path == "/containers/json":
            return HEAD + json.dumps([{"Id": container} for container in self.containers]).encode()
        name = path.split("/")[2]
        return HEAD + json.dumps(self.containers[name].inspected()).encode() if name in self.containers else NOT_FOUND

    async def _logs(self, target: str, writer: asyncio.StreamWriter) -> None:
        container = self.containers[target.split("/")[2]]
        is_following = "follow" in parse_qs(urlsplit(target).query)
        writer.write(HEAD)
        at = 0
        while True:
            for stamp, line in container.log[at:]:
                entry = f"{stamp} {line}".encode() if is_following else line.encode()
                writer.write(struct.pack(">BxxxL", 1, len(entry)) + entry)
            at = len(container.log)
            if not is_following or container.status != "running" or container.ends_logs:
                return
            self.tick.clear()
            await self.tick.wait()

    async def _grpc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nhello ")
        writer.write(await reader.read())
        await writer.drain()
