"""The two servers, each a child process on the target's core: the real gateway, and the bare one of `bare`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import bare, machine
from bench.gateway.stage import Incomplete, Scene
from bench.lifecycle.link import tail
from tests.services import child, free_port

START_TIMEOUT_S = 60.0
_LOOK_S = 0.02
BARE, STAGELY = "bare", "stagely"


class TargetFailed(Incomplete):
    """The server did not start, or ended. The text has the end of its log."""


@dataclass(slots=True)
class Target:
    """One server that runs. After `kill`, `start` makes a new one on the same port."""

    name: str
    port: int
    scene: Scene
    log: Path
    _open: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]
    _stack: ExitStack
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Begin a process; it does not listen yet."""
        self._process = self._stack.enter_context(self._open())
        machine.pin(self._process.pid, self.scene.stage.cores.target)

    async def listening(self) -> None:
        """Wait until it answers. Raises TargetFailed."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._answers():
                    self.check_alive()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise TargetFailed(f"{self.name} did not listen within {START_TIMEOUT_S:.0f} s.{tail(self.log)}") from None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check_alive(self) -> None:
        """Raises TargetFailed when it has ended."""
        if self._process is not None and not self.is_alive:
            raise TargetFailed(f"{self.name} ended with {self._process.returncode}.{tail(self.log)}")

    def kill(self) -> None:
        """As `kill -9` does; gone when it returns."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def meter(self) -> machine.Meter:
        return machine.Meter(self.pid, self.scene.stage.cores.target)

    def pss_kib(self) -> int:
        self.check_alive()
        return machine.pss_kib(self.pid)

    async def _answers(self) -> bool:
        """The gateway says that it is healthy; the bare server knows no such path, and any answer will do."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        return b" 200 " in answer if self.name == STAGELY else bool(answer)


@contextmanager
def target(name: str, scene: Scene, log: Path, heartbeat_s: float, duty: bare.Duty | None = None) -> Iterator[Target]:
    """A server of that name, started and perhaps not listening yet. `duty`: what the bare one does besides."""
    port = free_port()

    def run() -> AbstractContextManager[subprocess.Popen[bytes]]:
        if name == STAGELY:
            environment = gateway_environment(scene, port, heartbeat_s)
            return _child([sys.executable, "-m", "api.gateway"], log, environment)
        given = duty or bare.Duty()
        orders = bare.Orders(
            port, heartbeat_s, scene.database_url, scene.stage.redis_url, str(scene.stage.signing_key_file), given
        )
        return _child([sys.executable, "-m", "bench.gateway.bare", orders.to_text()], log, {})

    with ExitStack() as stack:
        made = Target(name, port, scene, log, run, stack)
        made.start()
        yield made


def gateway_environment(scene: Scene, port: int, heartbeat_s: float) -> dict[str, str]:
    """The settings of an installation; nothing else differs from a gateway in earnest."""
    return {
        "STAGELY_INSTALLATION": "bench",
        "STAGELY_STATE": str(scene.stage.folder),
        "STAGELY_DATABASE_URL": scene.database_url,
        "STAGELY_REDIS_URL": scene.stage.redis_url,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",  # Only results and losses go there, and no scenario has one.
        "STAGELY_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "STAGELY_SIGNING_KEY_FILE": str(scene.stage.signing_key_file),
        "STAGELY_ENCRYPTION_KEY_FILE": str(scene.stage.encryption_key_file),
        "STAGELY_HEARTBEAT_S": str(heartbeat_s),
    }


@contextmanager
def _child(argv: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """As tests.services.child, with nothing of the caller's own installation and this environment instead."""
    foreign = [key for key in os.environ if key.startswith(("STAGELY_", "TEMPORAL_"))]
    unset = [argument for key in foreign for argument in ("-u", key)]
    given = [f"{key}={value}" for key, value in environment.items()]
    with child(["env", *unset, *given, *argv], log) as process:
        yield process
