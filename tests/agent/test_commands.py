"""Every command gets exactly one Result: stopped before it began, on a full disk, with the Engine away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.build import Builder
from agent.commands import Commands, Crew
from agent.containers import Containers
from agent.deploy import Deployer
from agent.engine import Engine
from agent.ingress import Ingress
from agent.logs import ServiceLogs
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore
from agent.preview import Preview
from agent.protocol import (
    MAX_FRAME_BYTES,
    AgentState,
    Build,
    Deploy,
    Failure,
    Outcome,
    Prepare,
    Result,
    Stop,
    ToAgent,
    decode_to_core,
)
from agent.report import Reporter, StepFailed
from agent.session import AnswerAgain, Cancel, Execute, Identity, Session
from agent.spool import Spool
from agent.streams import Batcher

LIMIT_S = 20.0
DEPLOY = Deploy("run/deploy", "http://127.0.0.1:9/o/r", "a" * 40, "p", ("c.yml",), (), (), 60.0)
BUILD = Build("b", "http://127.0.0.1:9/o/r", "a" * 40, "web", "amd64", ".", "Dockerfile", "r/x", "", 60.0)
STOP = Stop("run/deploy/stop", "run/deploy")


@dataclass(frozen=True, slots=True)
class Parts:
    session: Session
    commands: Commands
    outbox: Outbox

    def receive(self, group: asyncio.TaskGroup, *messages: ToAgent) -> None:
        """Without a suspension between them, as frames that arrived together."""
        for message in messages:
            for effect in self.session.received(message):
                match effect:
                    case Execute(command=command):
                        self.commands.execute(command, group)
                    case Cancel(stop_id=stop_id, target_id=target_id):
                        self.commands.cancel(stop_id, target_id)
                    case _:
                        raise AssertionError(effect)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return {command_id: result.outcome for command_id, result in self.outbox.results.items()}


class FillsTheDisk(Builder):
    async def build(self, order: Build, report: Reporter) -> str:
        with report.step("build"), open("/dev/full", "wb", buffering=0) as file:  # noqa: ASYNC230
            file.write(b"image")
        return ""


class SaysThatTheDiskIsFull(Builder):
    async def build(self, order: Build, report: Reporter) -> str:
        raise StepFailed(Failure("build", f"target {order.target}: write /x: no space left on device"))


def new(folder: Path, builder: Builder | None = None) -> Parts:
    """No Engine is there."""
    engine = Engine(folder / "no-engine.sock")
    outbox = Outbox(Spool(folder / "spool"), ResultStore(folder / "results"))
    session = Session(Identity("vm", "b"), outbox.results, 0)
    patterns, batcher, containers = Patterns(), Batcher(), Containers(engine)
    logs = ServiceLogs(folder, engine, containers, outbox, patterns, batcher)
    preview = Preview(folder, containers, Ingress(lambda _: None), logs)
    builder = builder or Builder(folder / "work", folder / "run", {})
    deployer = Deployer(folder / "work", folder / "run", engine, containers, preview)
    crew = Crew(builder, deployer, engine, containers)
    return Parts(session, Commands(crew, outbox, patterns, batcher, session.finished), outbox)


@asynccontextmanager
async def commands_end() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        yield group


async def test_a_stop_right_behind_its_command_ends_it_with_a_result_that_survives(tmp_path: Path) -> None:
    parts = new(tmp_path)

    async with commands_end() as group:
        parts.receive(group, DEPLOY, STOP)

    assert parts.outcomes == {"run/deploy": Outcome.CANCELLED, "run/deploy/stop": Outcome.SUCCEEDED}
    assert parts.commands.state is AgentState.IDLE
    (again,) = new(tmp_path).session.received(DEPLOY)
    assert isinstance(again, AnswerAgain)
    assert again.result.outcome is Outcome.CANCELLED


async def test_a_command_that_comes_behind_its_stop_is_never_executed(tmp_path: Path) -> None:
    parts = new(tmp_path)

    async with commands_end() as group:
        parts.receive(group, STOP, DEPLOY)

    assert parts.outcomes == {"run/deploy": Outcome.CANCELLED, "run/deploy/stop": Outcome.SUCCEEDED}


async def test_a_command_that_has_begun_says_itself_that_it_was_stopped(tmp_path: Path) -> None:
    parts = new(tmp_path)

    async with commands_end() as group:
        parts.receive(group, DEPLOY)
        await asyncio.sleep(0)
        parts.receive(group, STOP)

    assert parts.outcomes == {"run/deploy": Outcome.CANCELLED, "run/deploy/stop": Outcome.SUCCEEDED}


async def test_preparing_succeeds_also_without_an_engine(tmp_path: Path) -> None:
    parts = new(tmp_path)

    async with commands_end() as group:
        parts.receive(group, Prepare("run/prepare", ("busybox:1",)))

    assert parts.outcomes == {"run/prepare": Outcome.SUCCEEDED}


async def test_a_full_disk_is_a_failure_that_says_so(tmp_path: Path) -> None:
    parts = new(tmp_path, FillsTheDisk(tmp_path / "work", tmp_path / "run", {}))
    os.close(parts.outbox.spool._out)
    parts.outbox.spool._out = os.open("/dev/full", os.O_WRONLY)

    async with commands_end() as group:
        parts.receive(group, BUILD)

    ((_, frame),) = parts.outbox.spool.read(0, MAX_FRAME_BYTES)
    said = decode_to_core(frame)
    assert isinstance(said, Result)
    assert said.failure is not None
    assert said.failure.message.startswith("the disk of the VM is full.")


async def test_a_tool_that_met_a_full_disk_is_quoted_behind_the_cause(tmp_path: Path) -> None:
    parts = new(tmp_path, SaysThatTheDiskIsFull(tmp_path / "work", tmp_path / "run", {}))

    async with commands_end() as group:
        parts.receive(group, BUILD)

    failure = parts.outbox.results["b"].failure
    assert failure is not None
    assert failure.message == "the disk of the VM is full: target web: write /x: no space left on device"
