"""One VM without its machine: a real agent process that can be killed, git and docker that do as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.agent.fake_engine import FakeContainer, FakeEngine
from tests.api import scripted
from tests.api.wire import DEADLINE_S, Identity

ROOT = Path(__file__).parents[2]
SERVICE = "api"
SERVICE_LOG = [(f"2026-01-01T00:00:0{i}.000000000Z", f"request {i} was answered\n") for i in range(3)]


@dataclass(slots=True)
class Points:
    """Where the programs ask to go on. They may, but at the point that is held."""

    waiting_pid: int = 0
    _held: str = ""
    _reached: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self, point: str) -> None:
        """Whoever comes to this point waits there until `release`."""
        self._held, self.waiting_pid = point, 0
        self._reached.clear()
        self._released.clear()

    def release(self) -> None:
        self._held = ""
        self._released.set()

    async def reached(self) -> None:
        """Return when somebody waits; `waiting_pid` is then the program's, 0 for the Engine."""
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    async def pass_by(self, point: str, pid: int = 0) -> None:
        """Return when this point may be left."""
        if point == self._held:
            self.waiting_pid = pid
            self._reached.set()
            await self._released.wait()


@dataclass(slots=True)
class Machine:
    """`start` and `kill` do to the agent what systemd and a fault do; the Engine and its containers live on.

    `found` is what lay in the places of secrets and work trees whenever a checkout began.
    """

    folder: Path
    identity: Identity
    core_port: int = 0
    points: Points = field(default_factory=Points)
    found: list[tuple[str, ...]] = field(default_factory=list)
    engine: FakeEngine = field(init=False)
    agent: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.folder / "engine.sock")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The Engine and the programs are there; the agent is not started. Afterwards nothing of it is left."""
        _put_programs(self.folder / "bin")
        server = await asyncio.start_unix_server(self._serve, str(self.folder / scripted.POINTS))
        async with self.engine.running(), server:
            try:
                yield
            finally:
                self._clear_away()

    def start(self) -> None:
        (self.folder / "config.json").write_text(json.dumps(self._config()))
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        argv = [sys.executable, "-m", "agent", "--config", str(self.folder / "config.json")]
        with (self.folder / "agent.log").open("ab") as journal:
            self.agent = subprocess.Popen(argv, env=environment, cwd=ROOT, stderr=journal)

    def kill(self) -> None:
        """kill -9, and with it goes what it started: systemd ends the rest of a unit before it starts it again."""
        assert self.agent is not None
        assert self.agent.poll() is None, "the agent had ended before it was killed"
        self.agent.kill()
        assert self.agent.wait() == -signal.SIGKILL
        self._end_programs()

    def freeze(self) -> None:
        """From now on the agent does nothing; what it is sent waits in its socket."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGSTOP)
        os.waitpid(self.agent.pid, os.WUNTRACED)

    def thaw(self) -> None:
        assert self.agent is not None
        self.agent.send_signal(signal.SIGCONT)

    def carried_out(self) -> dict[str, int]:
        """How often each thing began and ended, as the programs wrote down themselves."""
        file = self.folder / scripted.CARRIED_OUT
        return dict(Counter(file.read_text().splitlines())) if file.exists() else {}

    def leftovers(self) -> tuple[str, ...]:
        """The overrides, credentials and builds' work trees that are there now."""
        run, builds = self.folder / "run", self.folder / "work" / "builds"
        found = [*run.glob("*compose*"), *run.glob(".*compose*"), *run.glob("docker-*"), *builds.glob("*")]
        return tuple(sorted(path.name for path in found))

    def spool_files(self) -> list[Path]:
        return sorted((self.folder / "state" / "spool").glob("*/*.frames"))

    async def has_spooled_result(self) -> bool:
        return any(b'"type":"RESULT"' in path.read_bytes() for path in self.spool_files())

    def times_welcomed(self) -> int:
        return (self.folder / "agent.log").read_bytes().count(b"core reached")

    def programs(self) -> list[int]:
        """The processes that agents of this machine started and that live."""
        variable = f"PATH={self.folder / 'bin'}:".encode()
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _has_variable(path, variable)]
        return [pid for pid in pids if self.agent is None or pid != self.agent.pid]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        point, pid = (await reader.readline()).decode().split()
        if point == "checkout":
            self.found.append(self.leftovers())
        await self.points.pass_by(point, int(pid))
        if point == "started":
            await self._start_container()
        writer.write(b".")
        writer.close()
        if point == "started":
            await self.points.pass_by("health")
            self.engine.containers[SERVICE].health = "healthy"
            await self.engine.changed()

    async def _start_container(self) -> None:
        """One that runs already stays as it is, as with Compose."""
        if SERVICE not in self.engine.containers:
            container = FakeContainer(SERVICE, SERVICE, log=list(SERVICE_LOG), health="starting")
            self.engine.containers[SERVICE] = container
        await self.engine.changed()

    def _config(self) -> dict[str, object]:
        return {
            "agent_id": self.identity.vm_id,
            "core_url": f"ws://127.0.0.1:{self.core_port}",
            "token": self.identity.token,
            "state_dir": str(self.folder / "state"),
            "work_dir": str(self.folder / "work"),
            "run_dir": str(self.folder / "run"),
            "docker_socket": str(self.engine.socket),
            "reconnect_first_wait_s": 0.02,
        }

    def _end_programs(self) -> None:
        for pid in self.programs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _clear_away(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
        self._end_programs()
        self.points.release()
        self.engine.end_containers()


def _put_programs(folder: Path) -> None:
    folder.mkdir()
    text = f"#!{sys.executable} -IS\n{Path(scripted.__file__).read_text()}"
    for name in ("git", "docker"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def _has_variable(process: Path, variable: bytes) -> bool:
    try:
        return any(one.startswith(variable) for one in (process / "environ").read_bytes().split(b"\0"))
    except OSError:
        return False  # Gone meanwhile, or not ours.
