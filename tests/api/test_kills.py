"""kill -9 of the gateway, the agent, and both, at every step of a build and of a deployment: the command still ends.

A killed agent begins a command anew that had not ended. So the command's stream holds what the first attempt had said,
whole lines from its beginning on, and behind that all of the second attempt. A command that has ended is not repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from temporalio.client import Client

from stagely.settings import Settings
from tests.api.ledger import Ledger
from tests.api.line import Line
from tests.api.machine import Machine
from tests.api.scene import LAST_POINT, SERVICE_SAYS, End, Scene, Victims, attempt_says, order_of
from tests.api.world import eventually, identity, start_owner
from tests.services import free_port

pytestmark = pytest.mark.timeout(240)

GATEWAY, AGENT, BOTH = ("gateway",), ("agent",), ("gateway", "agent")
NOBODY: Victims = ()
# Moments, and who is killed there in the quick run; the slow one kills everybody everywhere.
STEPS = [
    ("build", "clone", AGENT),
    ("build", "build", BOTH),
    ("build", "push", AGENT),
    ("deploy", "clone", GATEWAY),
    ("deploy", "pull", AGENT),
    ("deploy", "up", BOTH),
    ("deploy", "health", AGENT),
]

BEFORE = [("build", "pushed", NOBODY), ("deploy", "pushed", AGENT)]
AFTER = [
    ("build", "spooled", BOTH),
    ("build", "sent", NOBODY),
    ("build", "stored", GATEWAY),
    ("build", "told", NOBODY),
    ("deploy", "spooled", NOBODY),
    ("deploy", "sent", AGENT),
    ("deploy", "stored", NOBODY),
    ("deploy", "told", BOTH),
]

OpenScene = Callable[[str], AbstractAsyncContextManager[Scene]]


def matrix(*quick: tuple[str, str, Victims]) -> list[object]:
    """Every one of these moments with every victim; what `quick` does not name is slow."""
    every = [(kind, moment, victims) for kind, moment, _ in quick for victims in (GATEWAY, AGENT, BOTH)]
    return [
        pytest.param(*one, id="-".join((*one[:2], "+".join(one[2]))), marks=() if one in quick else pytest.mark.slow)
        for one in every
    ]


def once(kind: str) -> End:
    """The command was carried out once, and everybody heard of it once."""
    done = "build" if kind == "build" else "up"
    return End(
        log=attempt_says(kind, 1),
        service_log=SERVICE_SAYS if kind == "deploy" else "",
        carried_out={f"{done} began": 1, f"{done} ended": 1},
        told=((order_of(kind).command_id, "succeeded"),),
        trees=frozenset({1 if kind == "build" else 0}),
    )


def twice(kind: str, step: str) -> End:
    """The command was begun anew after it had come as far as this step."""
    done = "build" if kind == "build" else "up"
    began = 1 if step in ("clone", "pull") else 2
    carried_out = {f"{done} began": began, f"{done} ended": 2 if step == "health" else 1}
    return replace(once(kind), log=attempt_says(kind, 1, step) + attempt_says(kind, began), carried_out=carried_out)


def told_again(kind: str) -> End:
    return replace(once(kind), told=once(kind).told * 2)


@asynccontextmanager
async def spooled(scene: Scene) -> AsyncIterator[None]:
    """The result is on the agent's disk, and the line is cut."""
    await scene.run_until(LAST_POINT[scene.order.kind])
    scene.line.is_open = False
    scene.line.cut()
    scene.machine.points.release()
    await eventually(scene.machine.has_spooled_result)
    yield


@asynccontextmanager
async def sent(scene: Scene) -> AsyncIterator[None]:
    """The gateway has the result, and Postgres lets it wait."""
    await scene.run_until(LAST_POINT[scene.order.kind])
    async with scene.ledger.inbox_held():
        scene.machine.points.release()
        await eventually(scene.machine.has_spooled_result)
        await eventually(scene.ledger.is_inbox_waited_for)
        yield


@asynccontextmanager
async def stored(scene: Scene) -> AsyncIterator[None]:
    """The result is in Postgres, and Temporal is away: its owner was not told, the agent's spool not released."""
    scene.gateway_changes["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
    await scene.run_until(LAST_POINT[scene.order.kind])
    scene.machine.points.release()
    await eventually(scene.is_result_stored)
    yield
    scene.gateway_changes.clear()
    await scene.replace_gateway()


@asynccontextmanager
async def told(scene: Scene) -> AsyncIterator[None]:
    """The owner has the result, and Postgres lets the gateway wait that wants to write it down."""
    await scene.run_until(LAST_POINT[scene.order.kind])
    async with scene.ledger.commands_held():
        scene.machine.points.release()
        await eventually(scene.is_owner_told)
        yield


MOMENTS = {moment.__name__: moment for moment in (spooled, sent, stored, told)}


@pytest.fixture
async def open_scene(
    settings: Settings, ledger: Ledger, redis: Redis, temporal_client: Client, tmp_path: Path
) -> OpenScene:
    owner = await start_owner(temporal_client)
    machine = Machine(tmp_path, identity("vm-1"))
    line = Line(free_port())

    def opened(kind: str) -> AbstractAsyncContextManager[Scene]:
        return Scene(settings, ledger, redis, machine, owner, line, order_of(kind)).running()

    return opened


@pytest.mark.parametrize(("kind", "step", "victims"), matrix(*STEPS))
async def test_a_kill_in_a_step_costs_no_line_and_no_result(
    open_scene: OpenScene, kind: str, step: str, victims: Victims
) -> None:
    async with open_scene(kind) as scene:
        await scene.run_until(step)
        scene.kill(victims)
        scene.machine.points.release()
        await scene.restart(victims)
        end = await scene.end()

    assert end == (twice(kind, step) if "agent" in victims else once(kind))


@pytest.mark.parametrize(("kind", "moment", "victims"), matrix(*BEFORE))
async def test_a_kill_before_the_agent_has_read_a_command_costs_nothing(
    open_scene: OpenScene, kind: str, moment: str, victims: Victims
) -> None:
    async with open_scene(kind) as scene:
        await scene.meet()
        scene.machine.freeze()
        await scene.give(scene.order)
        await eventually(scene.is_pushed)
        assert scene.machine.carried_out() == {}
        scene.kill(victims)
        if "agent" not in victims:
            scene.machine.thaw()
        await scene.restart(victims)
        end = await scene.end()

    assert end == once(kind)


@pytest.mark.parametrize(("kind", "moment", "victims"), matrix(*AFTER))
async def test_a_kill_on_the_results_way_repeats_neither_the_command_nor_its_result(
    open_scene: OpenScene, kind: str, moment: str, victims: Victims
) -> None:
    async with open_scene(kind) as scene:
        async with MOMENTS[moment](scene):
            scene.kill(victims)
            await scene.restart(victims)
        end = await scene.end()

    # A gateway that is killed between telling the owner and writing that down tells it again, under the same number.
    assert end == (told_again(kind) if moment == "told" and "gateway" in victims else once(kind))


async def test_a_result_that_the_kill_tore_in_the_spool_is_said_from_the_kept_answer(open_scene: OpenScene) -> None:
    async with open_scene("deploy") as scene:
        async with spooled(scene):
            scene.kill(AGENT)
            torn = tear_last_record(scene.machine.spool_files()[-1])
            await scene.restart(AGENT)
        end = await scene.end()

    assert torn.startswith(b'{"type":"RESULT"')
    assert end == once("deploy")


def tear_last_record(segment: Path) -> bytes:
    """Leave half of it, and return all of it."""
    written = segment.read_bytes()
    record = written.splitlines()[-1]
    segment.write_bytes(written[: -len(record) // 2])
    return record
