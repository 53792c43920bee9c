"""What a deployment leaves, and says, when something else is wrong than the repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import compose
from agent.containers import Containers, parse
from agent.deploy import Deployer, Plan
from agent.engine import Engine, EngineError
from agent.health import Judgement, Verdict
from agent.ingress import Ingress
from agent.logs import ServiceLogs
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore
from agent.preview import Preview, Shown
from agent.protocol import AgentState, Deploy, Exposed, Failure
from agent.pull import Puller
from agent.report import Reporter
from agent.spool import Spool
from agent.streams import Batcher, LogStream
from tests.agent.fake_engine import FakeContainer

LIMIT_S = 20.0
ORDER = Deploy("run/deploy", "http://127.0.0.1:9/o/r", "a" * 40, "p", ("c.yml",), (), (), 60.0)


class Parts:
    def __init__(self, folder: Path) -> None:
        engine = Engine(folder / "no-engine.sock")
        self.outbox = Outbox(Spool(folder / "spool"), ResultStore(folder / "results"))
        self.patterns, self.batcher, containers = Patterns(), Batcher(), Containers(engine)
        logs = ServiceLogs(folder, engine, containers, self.outbox, self.patterns, self.batcher)
        self.ingress = Ingress(lambda _: None)
        self.preview = Preview(folder, containers, self.ingress, logs)
        self.deployer = Deployer(folder / "work", folder, engine, containers, self.preview)
        self.report = Reporter("run/deploy", AgentState.DEPLOYING, self.outbox, self.patterns, self.batcher)


async def test_a_waiting_deployment_that_is_cancelled_leaves_the_running_ones_override(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    override = tmp_path / compose.OVERRIDE_NAME

    async with asyncio.timeout(LIMIT_S), parts.deployer._turn:
        override.write_text("in use")
        waiting = asyncio.ensure_future(parts.deployer.deploy(ORDER, parts.report))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert override.read_text() == "in use"


def test_a_half_written_override_is_a_leftover_too(tmp_path: Path) -> None:
    half = tmp_path / f".{compose.OVERRIDE_NAME}.new"
    half.write_text("services:")

    Parts(tmp_path).deployer.remove_leftovers()

    assert not half.exists()


async def test_an_engine_that_is_away_while_pulling_is_named_and_is_no_group(tmp_path: Path) -> None:
    stream = LogStream(Patterns(), lambda _: None, lambda _: None)

    with pytest.raises(EngineError, match="the Docker Engine is not there"):
        await Puller(Engine(tmp_path / "none"), stream).pull_all({"busybox:1": "", "busybox:2": ""})


async def test_an_engine_that_is_away_while_docker_compose_runs_is_named_and_is_no_group(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    plan = Plan(tmp_path, (tmp_path / "none" / "c.yml",), tmp_path / "override.yml", {}, {})

    with pytest.raises(OSError, match="No such file"):
        await parts.deployer._up_while_watching(ORDER, plan, parts.report.stream("deploy"), {}, 0.0)


async def test_a_failure_is_said_also_when_the_containers_log_cannot_be_read(tmp_path: Path) -> None:
    container = parse(FakeContainer("1", "web", status="exited").inspected())

    failure = await Parts(tmp_path).deployer._failure("up", "web", Judgement(Verdict.FAILED, "ended", container))

    assert failure == Failure("up", "service web ended", "web", 0, ())


def test_what_is_shown_is_known_again_after_a_restart(tmp_path: Path) -> None:
    old = (Exposed("web", 80, "http://web"), Exposed("api", 81, "http://api"))
    Parts(tmp_path).preview.show(Shown("p", "c1", old))

    again = Parts(tmp_path).preview

    assert again.restore()
    assert again.exposed == old
