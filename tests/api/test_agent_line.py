"""A build's whole log, and a deployment, over a line that is cut all the time: a real agent and gateway, and faults."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from temporalio.client import Client

from stagely.settings import Settings
from tests.api.ledger import Ledger
from tests.api.line import Line
from tests.api.machine import Machine
from tests.api.scene import GATEWAY, SERVICE_SAYS, VM, attempt_says, order_of, without_seconds
from tests.api.scripted import DRIVEN_BUILD
from tests.api.test_processes import answers, program
from tests.api.wire import REDIAL_S
from tests.api.world import eventually, identity, signals, start_owner
from tests.services import free_port

STREAMS = ("build/api", "deploy", "service/api")
LINES_PER_CUT = 4000


@dataclass(slots=True)
class DrivenBuild:
    """What lets the build go on: a byte per LINES_PER_CUT lines, and its end."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.StreamWriter | None = None

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        """The scripted `docker buildx build` of this folder is driven from here."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            (folder / DRIVEN_BUILD).write_text(f"{port} {LINES_PER_CUT}")
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun.set()
        await reader.read()

    def go_on(self) -> None:
        assert self._writer is not None
        self._writer.write(b".")

    def end(self) -> None:
        assert self._writer is not None
        self._writer.write_eof()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cuts", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_a_long_log_arrives_whole_and_a_deployment_happens_once_whatever_breaks(
    settings: Settings, ledger: Ledger, temporal_client: Client, tmp_path: Path, cuts: int
) -> None:
    """The gateway is stopped once and killed once, the agent killed with most of the log still in its spool."""
    owner = await start_owner(temporal_client)
    await ledger.add_vm(VM, owner.id)
    build_id, deploy_id = [await add_patient(ledger, kind) for kind in ("build", "deploy")]
    line, build, machine = Line(free_port()), DrivenBuild(), Machine(tmp_path, identity(VM))
    listen = f"127.0.0.1:{line.gateway_port}"

    async with line.running(), machine.running(), build.listening(tmp_path):
        machine.core_port = line.port
        machine.points.hold("up")
        machine.start()
        for end in (signal.SIGTERM, signal.SIGKILL):
            with program(GATEWAY, settings, STAGELY_GATEWAY_LISTEN=listen) as gateway:
                await answers(f"http://{listen}/healthz")
                await build.begun.wait()
                await machine.points.reached()
                await disturb(line, build, 1)
                machine.points.release()  # The deployment's end, too, comes between cuts.
                await disturb(line, build, cuts // 2 - 1)
                gateway.send_signal(end)
                await asyncio.to_thread(gateway.wait)
        build.end()
        await eventually(lambda: has_answers(tmp_path, 2))
        machine.kill()
        machine.start()
        with program(GATEWAY, settings, STAGELY_GATEWAY_LISTEN=listen):
            await answers(f"http://{listen}/healthz")
            await eventually(lambda: are_answered(ledger, build_id, deploy_id), REDIAL_S)
            told = {(event.boot_id, event.seq, event.command_id, event.outcome) for event in await signals(owner)}
        carried_out = machine.carried_out()

    logs = {name: "".join(d.decode() for _, stream, d in await ledger.chunks(VM) if stream == name) for name in STREAMS}
    head, _, log = logs["build/api"].partition("\n")
    assert head.startswith("Cloning ")
    assert log.count("\n") == cuts * LINES_PER_CUT
    assert hashlib.sha256(log.encode()).hexdigest() == (tmp_path / f"{DRIVEN_BUILD}.hash").read_text()
    assert without_seconds(logs["deploy"]) == attempt_says("deploy", 1)
    assert logs["service/api"] == SERVICE_SAYS
    assert carried_out == {"build began": 1, "build ended": 1, "up began": 1, "up ended": 1}
    # A gateway killed right behind a signal sends it again, under the number that it had.
    assert sorted(one[2:] for one in told) == [(build_id, "succeeded"), (deploy_id, "succeeded")]


async def add_patient(ledger: Ledger, kind: str) -> str:
    """A command that may take as long as this test; its id."""
    order = order_of(kind)
    order = replace(
        order,
        build=replace(order.build, timeout_s=200) if order.build else None,
        deploy=replace(order.deploy, health_timeout_s=200) if order.deploy else None,
    )
    await ledger.add_command(order)
    return order.command_id


async def disturb(line: Line, build: DrivenBuild, cuts: int) -> None:
    """So many parts of the log, the line cut in the middle of each."""
    for _ in range(cuts):
        build.go_on()
        await line.until_more(10_000)
        line.cut()


async def has_answers(folder: Path, count: int) -> bool:
    """The agent keeps the results: these commands will not run again."""
    return len(list((folder / "state" / "results").glob("*.json"))) == count


async def are_answered(ledger: Ledger, *command_ids: str) -> bool:
    return None not in [await ledger.answered_at(command_id) for command_id in command_ids]
