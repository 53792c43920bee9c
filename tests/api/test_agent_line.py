"""One build's whole log over a line that is cut all the time: a real agent, a real gateway, and what breaks between."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from temporalio.client import Client

from stagely.settings import Settings
from tests.api.ledger import Ledger, build_order
from tests.api.test_processes import answers, is_answered, program
from tests.api.world import eventually, identity, signals, start_owner
from tests.services import free_port

LINES_PER_CUT = 4000
GATEWAY = "tests.api.gateway_process"
ROOT = Path(__file__).parents[2]

# Stands for git and for docker on the agent's PATH: a tree with a Dockerfile, and a build that says what it is let to.
_GIT = """#!/bin/sh
case "$*" in *checkout*) mkdir -p "$GIT_WORK_TREE/api"; : > "$GIT_WORK_TREE/api/Dockerfile";; esac
"""
_DOCKER = """#!{python}
import hashlib, json, os, socket, sys
if "buildx" not in sys.argv:
    sys.exit(1)
with open("{folder}/runs", "a") as runs:
    runs.write("run\\n")
said, number = hashlib.sha256(), 0
with socket.create_connection(("127.0.0.1", {port})) as driver:
    while driver.recv(1):
        text = "".join(f"line {{number + i:06}} of the build, long enough to be one\\n" for i in range({lines}))
        number += {lines}
        said.update(text.encode())
        sys.stderr.write(text)
        sys.stderr.flush()
with open(sys.argv[sys.argv.index("--metadata-file") + 1], "w") as file:
    json.dump({{"containerimage.digest": "sha256:" + "d" * 64}}, file)
with open("{folder}/hash", "w") as file:
    file.write(said.hexdigest())
"""


@dataclass(slots=True)
class Line:
    """Between agent and gateway. `cut` ends every connection at once, `is_open` False refuses new ones."""

    gateway_port: int
    port: int = 0
    is_open: bool = True
    carried: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.gateway_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, there_writer, is_from_agent=True))
            group.create_task(self._carry(there_reader, writer, is_from_agent=False))
        self._writers -= {writer, there_writer}

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def until_more(self, bytes_more: int) -> None:
        """Wait until the agent has sent so much more."""
        wanted = self.carried + bytes_more
        while self.carried < wanted:
            self.changed.clear()
            await self.changed.wait()

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_from_agent: bool) -> None:
        try:
            while chunk := await source.read(65536):
                to.write(chunk)
                await to.drain()
                if is_from_agent:
                    self.carried += len(chunk)
                    self.changed.set()
        except OSError:
            pass  # Cut, from one side or the other.
        finally:
            to.transport.abort()


@dataclass(slots=True)
class Build:
    """What lets the build go on: a byte per LINES_PER_CUT lines, and its end."""

    port: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun.set()
        await reader.read()

    def go_on(self) -> None:
        assert self._writer is not None
        self._writer.write(b".")

    def end(self) -> None:
        assert self._writer is not None
        self._writer.write_eof()


@contextmanager
def agent(folder: Path, line: Line, token: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "agent_id": "vm-1",
        "core_url": f"ws://127.0.0.1:{line.port}",
        "token": token,
        "state_dir": str(folder / "state"),
        "work_dir": str(folder / "work"),
        "run_dir": str(folder / "run"),
        "docker_socket": str(folder / "none.sock"),
        "reconnect_first_wait_s": 0.02,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "agent", "--config", str(folder / "config.json")]
    with subprocess.Popen(argv, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def put_programs(folder: Path, build: Build) -> None:
    tools = {
        "git": _GIT,
        "docker": _DOCKER.format(python=sys.executable, folder=folder, port=build.port, lines=LINES_PER_CUT),
    }
    (folder / "bin").mkdir()
    for name, text in tools.items():
        path = folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cuts", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_a_long_log_arrives_whole_and_once_whatever_breaks(
    settings: Settings, ledger: Ledger, temporal_client: Client, tmp_path: Path, cuts: int
) -> None:
    """The gateway is stopped once and killed once, the agent killed with most of the log still in its spool."""
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    order = build_order("vm-1")
    assert order.build is not None
    await ledger.add_command(replace(order, build=replace(order.build, timeout_s=200)))
    line, build = Line(free_port()), Build()
    line_server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    build_server = await asyncio.start_server(build.serve, "127.0.0.1", 0)
    line.port, build.port = (server.sockets[0].getsockname()[1] for server in (line_server, build_server))
    put_programs(tmp_path, build)
    listen = f"127.0.0.1:{line.gateway_port}"
    token = identity("vm-1").token

    with agent(tmp_path, line, token) as first:
        for end in (signal.SIGTERM, signal.SIGKILL):
            with program(GATEWAY, settings, STAGELY_GATEWAY_LISTEN=listen) as gateway:
                await answers(f"http://{listen}/healthz")
                await build.begun.wait()
                await disturb(line, build, cuts // 2)
                gateway.send_signal(end)
                await asyncio.to_thread(gateway.wait)
        build.end()
        await eventually(lambda: is_file(tmp_path / "hash"))
        await eventually(lambda: has_answer(tmp_path))
        first.kill()
        first.wait()
    with (
        agent(tmp_path, line, token),
        program(GATEWAY, settings, STAGELY_GATEWAY_LISTEN=listen),
    ):
        await answers(f"http://{listen}/healthz")
        await eventually(lambda: is_answered(ledger))

    kept = "".join(data.decode() for _, stream, data in await ledger.chunks("vm-1") if stream.startswith("build/"))
    head, _, log = kept.partition("\n")
    assert head.startswith("Cloning ")
    assert log.count("\n") == cuts * LINES_PER_CUT
    assert hashlib.sha256(log.encode()).hexdigest() == (tmp_path / "hash").read_text()
    assert (tmp_path / "runs").read_text() == "run\n"
    # At least once: a restarted agent that is told the command again answers again, and workflows drop what they know.
    told = {(event.kind, event.command_id, event.outcome) for event in await signals(owner)}
    assert told == {("result", order.command_id, "succeeded")}
    line_server.close()
    build_server.close()


async def disturb(line: Line, build: Build, cuts: int) -> None:
    """So many parts of the log, the line cut in the middle of each."""
    for _ in range(cuts):
        build.go_on()
        await line.until_more(10_000)
        line.cut()


async def is_file(path: Path) -> bool:
    return path.exists()


async def has_answer(folder: Path) -> bool:
    """The agent keeps the build's result: it will not run again."""
    return any((folder / "state" / "results").glob("*.json"))
