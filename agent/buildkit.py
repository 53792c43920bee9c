"""The Docker Engine's own BuildKit as a buildx builder of the kind `remote`.

Why not simply the default builder: buildx's docker driver refuses to push by digest and unpacks every result
(reference/local-vm.md, traps 5 and 6). Its remote driver does neither; it only wants a socket that speaks gRPC. The
Engine has one behind an HTTP upgrade of `/grpc`, which is what this relay does for each connection. (`docker buildx
dial-stdio` behind a systemd socket does the same, at 0.15 s of process starts for each of four connections per build.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from agent.files import write_private
from agent.relay import Half, Visitor

BUILDER = "stagely"
CONNECT_TIMEOUT_S = 60.0  # Early at boot the Engine's socket is there before the Engine.
_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
_MAX_HEAD_BYTES = 8192

log = logging.getLogger("stagely.agent.buildkit")


class BuildkitSocket:
    """Listens while `run` runs. `variables` make buildx know the builder named BUILDER."""

    def __init__(self, run_dir: Path, docker_socket: Path) -> None:
        self._path = run_dir / "buildkit.sock"
        self._folder = run_dir / "buildx"
        self._docker_socket = docker_socket

    @property
    def variables(self) -> dict[str, str]:
        return {"BUILDX_CONFIG": str(self._folder)}

    async def run(self) -> None:
        # The instance is written, not created: `buildx create` asks the builder first and hangs for 20 s.
        write_private(self._folder / "instances" / BUILDER, json.dumps(_instance(self._path)))
        self._path.unlink(missing_ok=True)
        async with asyncio.TaskGroup() as group:

            def lead_in(visitor: Visitor) -> None:
                group.create_task(self._connect(visitor))

            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: Visitor(lead_in), str(self._path))
            self._path.chmod(0o600)
            async with server:
                await server.serve_forever()

    async def _connect(self, visitor: Visitor) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_unix_connection(lambda: _Upgraded(visitor), str(self._docker_socket))
        except (OSError, TimeoutError) as error:
            log.warning("the Engine's BuildKit is not reached: %s", error)
            visitor.abort()


class _Upgraded(Half):
    """The Engine's half: joins its visitor once the Engine has agreed to speak gRPC."""

    def __init__(self, visitor: Visitor) -> None:
        super().__init__()
        self._visitor = visitor
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(_UPGRADE)

    def data_received(self, chunk: bytes) -> None:
        if self.peer is not None:
            super().data_received(chunk)
            return
        self._head += chunk
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end and head.split(b" ", 2)[1] == b"101":
            self.peer = self._visitor
            self._visitor.join(self)
            if rest:
                super().data_received(rest)
        elif end or len(self._head) > _MAX_HEAD_BYTES:
            log.warning("the Engine does not lend its BuildKit: %s", head[:200])
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is None:
            self._visitor.abort()
        super().connection_lost(error)


def _instance(socket: Path) -> dict[str, object]:
    node = {"Name": f"{BUILDER}0", "Endpoint": f"unix://{socket}", "Platforms": None, "Flags": None, "Files": None}
    return {"Name": BUILDER, "Driver": "remote", "Nodes": [node | {"DriverOpts": None}], "Dynamic": False}
