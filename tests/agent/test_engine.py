"""Looking at containers, following their logs, and borrowing BuildKit: against a Docker Engine of our own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.budget import LogBudget
from agent.buildkit import BUILDER, BuildkitSocket
from agent.containers import Containers, parse
from agent.engine import Engine, EngineError, log_entries
from agent.logs import ServiceLogs
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore
from agent.protocol import MAX_FRAME_BYTES, Log, Service, decode_to_core
from agent.spool import Spool
from agent.streams import Batcher
from tests.agent.fake_engine import FakeContainer, FakeEngine

LIMIT_S = 20.0


@pytest.fixture
async def docker(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "docker.sock")
    async with engine.running():
        yield engine


async def test_containers_are_looked_at_again_at_each_event(docker: FakeEngine) -> None:
    containers = Containers(Engine(docker.socket))
    looked = asyncio.Event()
    containers.on_change.append(looked.set)
    docker.containers["1"] = FakeContainer("1", "web")

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(containers.run())
        containers.choose("pr-1")
        await looked.wait()
        first = containers.services
        looked.clear()
        docker.containers["1"].status = "exited"
        await docker.changed()
        await looked.wait()
        task.cancel()

    assert first == (Service("web", "running"),)
    assert containers.services == (Service("web", "exited", "", 0),)


async def test_an_engine_that_is_away_is_an_error_that_names_its_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the Docker Engine is not there \(.*none\.sock"):
        await Engine(tmp_path / "none.sock").get("/containers/json")


async def test_a_container_that_is_gone_is_none(docker: FakeEngine) -> None:
    assert await Engine(docker.socket).inspect("nobody") is None


async def test_the_last_lines_of_a_container_are_read(docker: FakeEngine) -> None:
    docker.containers["1"] = FakeContainer("1", "web", log=[("", f"line {i}\n") for i in range(30)])

    tail = await Engine(docker.socket).tail("1", is_tty=False, lines=2)

    assert tail == ["line 28", "line 29"]


async def test_log_entries_are_found_in_pieces_of_any_size() -> None:
    stream = b"\x01\x00\x00\x00\x00\x00\x00\x02hi" + b"\x02\x00\x00\x00\x00\x00\x00\x03you"

    async def one_by_one() -> AsyncIterator[bytes]:
        for at in range(len(stream)):
            yield stream[at : at + 1]

    assert [entry async for entry in log_entries(one_by_one(), is_tty=False)] == [(1, b"hi"), (2, b"you")]


@dataclass(slots=True)
class Follower:
    """The log follower with all it needs, as a new process has it."""

    outbox: Outbox
    logs: ServiceLogs
    containers: Containers
    batcher: Batcher

    def said(self) -> list[tuple[str, str]]:
        found = [decode_to_core(frame) for _, frame in self.outbox.spool.read(0, MAX_FRAME_BYTES)]
        return [(log.stream, log.data) for log in found if isinstance(log, Log)]

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self.outbox.wait_beyond(self.outbox.spool.last_seq)


@asynccontextmanager
async def following(
    folder: Path, docker: FakeEngine, name: str, budget: LogBudget | None = None
) -> AsyncIterator[Follower]:
    engine = Engine(docker.socket)
    outbox = Outbox(Spool(folder / name), ResultStore(folder / "results"), budget=budget)
    containers, batcher = Containers(engine), Batcher(0.0)
    logs = ServiceLogs(folder, engine, containers, outbox, Patterns(["hush-hush"]), batcher)
    logs.belong_to("c1")
    containers.choose("pr-1")
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in (containers, logs, batcher)]
        yield Follower(outbox, logs, containers, batcher)
        for task in tasks:
            task.cancel()


async def test_service_logs_are_followed_masked_and_go_on_after_a_restart(docker: FakeEngine, tmp_path: Path) -> None:
    docker.containers["1"] = FakeContainer("1", "web")
    docker.say("1", "2026-01-01T00:00:00.000000001Z", "begin hush-hush\n")

    async with following(tmp_path, docker, "first") as first:
        await first.until(lambda: first.said() == [("service/web", "begin ***\n")])
    docker.say("1", "2026-01-01T00:00:00.000000002Z", "while the agent was away\n")
    async with following(tmp_path, docker, "second") as second:
        await second.until(lambda: second.said() == [("service/web", "while the agent was away\n")])
        docker.say("1", "2026-01-01T00:00:00.000000003Z", "and then\n")
        await second.until(lambda: len(second.said()) == 2)

    assert second.said()[1] == ("service/web", "and then\n")
    assert any("since=1767225600.000000001" in target for target in docker.asked)


async def test_a_service_that_used_up_its_deployments_log_is_read_again_for_the_next_one_only(
    docker: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.logs.PAUSE_S", 0.0)
    docker.containers["1"] = FakeContainer("1", "web")
    docker.say("1", "2026-01-01T00:00:00.000000001Z", "much\n")

    async with following(tmp_path, docker, "spool", LogBudget(limit_bytes=5)) as follower:
        await follower.until(lambda: len(follower.said()) == 2)
        docker.say("1", "2026-01-01T00:00:00.000000002Z", "too much\n")
        while follower.logs._following:  # noqa: ASYNC110  # The end of a reading wakes nobody.
            await asyncio.sleep(0)
        docker.say("1", "2026-01-01T00:00:00.000000003Z", "nobody reads this\n")
        follower.logs.belong_to("c2")
        docker.say("1", "2100-01-01T00:00:00.000000000Z", "new\n")
        await follower.until(lambda: len(follower.said()) == 3)

    (first, marker, new) = [data for _, data in follower.said()]
    assert (first, marker[:27], new) == ("much\n", "[stagely] the log ends here", "new\n")


async def test_a_job_that_has_ended_is_read_once(docker: FakeEngine, tmp_path: Path) -> None:
    docker.containers["1"] = FakeContainer("1", "job", status="exited")
    docker.say("1", "2026-01-01T00:00:00.000000001Z", "done\n")

    async with following(tmp_path, docker, "spool") as follower:
        await follower.until(lambda: bool(follower.said()))
        docker.containers["2"] = FakeContainer("2", "web", log=[("2026-01-01T00:00:00.000000002Z", "up\n")])
        await docker.changed()
        await follower.until(lambda: len(follower.said()) == 2)

    assert follower.said() == [("service/job", "done\n"), ("service/web", "up\n")]


async def test_a_position_is_kept_only_when_its_lines_are_in_the_spool(docker: FakeEngine, tmp_path: Path) -> None:
    """One container's flush must not keep the position of another whose lines still wait."""
    docker.containers["1"] = FakeContainer("1", "web", log=[("2026-01-01T00:00:00.000000001Z", "half a line")])
    docker.containers["2"] = FakeContainer("2", "db", log=[("2026-01-01T00:00:00.000000002Z", "up\n")])

    async with following(tmp_path, docker, "spool") as follower:
        await follower.until(lambda: bool(follower.said()))
        kept = json.loads((tmp_path / "service-logs.json").read_text())

    assert kept == {"2": "2026-01-01T00:00:00.000000002Z"}


async def test_a_log_that_ends_at_once_is_not_asked_for_again_at_once(docker: FakeEngine, tmp_path: Path) -> None:
    docker.containers["1"] = FakeContainer("1", "crashes", status="restarting")
    docker.containers["2"] = FakeContainer("2", "silent", ends_logs=True)

    async with following(tmp_path, docker, "spool") as follower:
        docker.containers["3"] = FakeContainer("3", "web", log=[("2026-01-01T00:00:00.000000002Z", "1\n")])
        await docker.changed()
        await follower.until(lambda: bool(follower.said()))
        for i in range(2, 30):
            docker.say("3", f"2026-01-01T00:00:00.0000000{i:02}Z", f"{i}\n")
            await docker.changed()
            await asyncio.sleep(0.01)

    logs = [target.split("/")[2] for target in docker.asked if "/logs?" in target]
    assert (logs.count("1"), logs.count("3")) == (1, 1)
    assert logs.count("2") <= 2


async def test_buildkit_is_reached_through_the_engine(docker: FakeEngine, tmp_path: Path) -> None:
    buildkit = BuildkitSocket(tmp_path / "run", docker.socket)

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(buildkit.run())
        path = tmp_path / "run" / "buildkit.sock"
        while not path.exists():  # noqa: ASYNC110  # The listener tells nobody when it is there.
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"grpc")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        task.cancel()

    assert answer == b"hello grpc"


async def test_buildx_finds_the_builder_where_its_variable_says(docker: FakeEngine, tmp_path: Path) -> None:
    buildkit = BuildkitSocket(tmp_path / "run", docker.socket)
    folder = Path(buildkit.variables["BUILDX_CONFIG"])

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(buildkit.run())
        while not (folder / "instances" / BUILDER).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()

    instance = json.loads((folder / "instances" / BUILDER).read_text())
    assert (instance["Name"], instance["Driver"]) == ("stagely", "remote")
    assert instance["Nodes"][0]["Endpoint"] == f"unix://{tmp_path}/run/buildkit.sock"


def test_a_container_is_read_from_inspect() -> None:
    inspected = FakeContainer("1", "web").inspected()
    inspected["RestartCount"] = 3
    inspected["State"] = {
        "Status": "running",
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-01-01T00:00:01.25Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "Health": {
            "Status": "unhealthy",
            "Log": [{"ExitCode": 0, "Output": "x"}, {"ExitCode": 7, "Output": "refused\n"}],
        },
    }
    inspected["NetworkSettings"] = {"Networks": {}, "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": None}}

    container = parse(inspected)

    assert (container.service, container.health, container.restarts) == ("web", "unhealthy", 3)
    assert (container.started_at, container.finished_at) == (1767225601.25, 0.0)
    assert container.last_probe is not None
    assert (container.last_probe.exit_code, container.last_probe.output) == (7, "refused")
    assert container.ports == {80: 8080}
