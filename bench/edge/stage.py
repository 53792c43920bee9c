"""What all rounds stand on: origin, echo, routes in Valkey and the load on one core, the proxies on the other."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from bench.edge import heads, peers
from bench.edge.certificate import write_certificate
from bench.edge.configs import Files, Ports
from bench.edge.peers import Command, PeerMissing
from bench.gateway import machine
from bench.lifecycle.link import tail
from edge.plain import IS_COMPILED
from edge.routes import Route, RouteStatus, encode, key_of
from tests.services import child, free_port, valkey_server

START_TIMEOUT_S = 20.0
_LOOK_S = 0.02


class StageFailed(Exception):
    """Something that every figure needs did not start, or ended. The text says what, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`ports.http` and `.tls` are the origin's own here, and 0."""

    folder: Path
    cores: machine.Cores
    ports: Ports
    files: Files
    quick: bool

    @property
    def tool(self) -> str:
        """The Go program. Raises PeerMissing."""
        return peers.go_tool(self.folder)


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy that runs, or the origin itself."""

    name: str
    pid: int
    http: int
    tls: int

    def meter(self, core: int) -> machine.Meter:
        return machine.Meter(self.pid, core)


@contextmanager
def stage(folder: Path, *, quick: bool) -> Iterator[tuple[Stage, Target]]:
    """With everything but the proxies. Raises StageFailed, PeerMissing."""
    cores = machine.two_cores()
    machine.pin(0, cores.load)
    with ExitStack() as stack:
        redis = stack.enter_context(valkey_server(folder))
        upstream, echo = free_port(), free_port()
        origin = stack.enter_context(_started(peers.upstream_command(folder, upstream), folder / "origin.log"))
        _build_tool(folder)
        if (folder / "bench-edge").exists():
            command = Command([peers.go_tool(folder), "echo", f"127.0.0.1:{echo}"])
            stack.enter_context(_started(command, folder / "echo.log"))
        files = write_certificate(folder)
        made = Stage(folder, cores, Ports(upstream, 0, upstream, echo, redis), files, quick)
        _announce(made.ports)
        say(f"the edge reads heads {'compiled' if IS_COMPILED else 'by expression: see python -m edge.compile'}")
        yield made, Target(peers.DIRECT, origin.pid, upstream, 0)


def _build_tool(folder: Path) -> None:
    try:
        command = peers.go_build(folder)
    except PeerMissing:
        return  # Said once for each figure that is left out.
    done = subprocess.run(command.argv, env=_environment(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageFailed(f"bench/edge/go does not build:\n{done.stderr}")


def _announce(ports: Ports) -> None:
    def record(environment: str, address: str, port: int) -> bytes:
        return encode(Route(RouteStatus.READY, "shop", "bench", 7, environment, address, port))

    routes = {
        key_of(heads.label(number)): record(f"env{number}", heads.address(number), ports.upstream)
        for number in range(heads.HOSTS)
    }
    routes[key_of(heads.WEBSOCKET_LABEL)] = record("env_ws", "127.0.0.1", ports.echo)
    with Redis(port=ports.redis) as redis:
        redis.mset(routes)


@contextmanager
def proxy(on: Stage, peer: peers.Peer, core: int | None = None) -> Iterator[Target]:
    """The proxy, started and perhaps not listening yet. Raises PeerMissing."""
    folder = on.folder / peer.name
    folder.mkdir(exist_ok=True)
    ports = Ports(free_port(), free_port(), on.ports.upstream, on.ports.echo, on.ports.redis)
    files = Files(str(folder), on.files.certificate, on.files.key, on.files.pem)
    with _started(peer.command(ports, files), folder / "log") as process:
        machine.pin(process.pid, on.cores.target if core is None else core)
        yield Target(peer.name, process.pid, ports.http, ports.tls)


async def listening(on: Stage, target: Target) -> Target:
    """The target once it serves, `tls` 0 when it does not speak it. Raises StageFailed."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await _answers(target.http, None):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise StageFailed(f"{target.name} did not answer.{tail(on.folder / target.name / 'log')}") from None
    has_tls = bool(target.tls) and await _answers(target.tls, _trusting())
    return Target(target.name, target.pid, target.http, target.tls if has_tls else 0)


async def _answers(port: int, tls: ssl.SSLContext | None) -> bool:
    name = heads.host(0) if tls else None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    except OSError:
        return False
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {heads.host(0)}\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _started(command: Command, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    given = [f"{key}={value}" for key, value in command.environment.items()]
    with child(["env", *given, *command.argv], log) as process:
        yield process


def _environment(command: Command) -> dict[str, str]:
    return {**os.environ, **command.environment}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
