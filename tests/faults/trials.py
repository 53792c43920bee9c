"""Run kill points: trace clean lives, then the same lives once per kill, several lanes side by side."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from temporalio.client import Client

from tests.encryption import CONVERTER
from tests.faults.lane import Lane, Ports, lane
from tests.faults.points import Kill, kills
from tests.faults.scenes import Scene, life, queue
from tests.services import postgres_server, temporal_server, valkey_server

SCENES: dict[str, Scene] = {"life": life, "queue": queue}
BUILD_SLOTS = {"life": 50, "queue": 1}
TRIAL_TIMEOUT_S = 150.0
LIVES = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """`leaked`: VMs alive at its end. `error` "": everything was as it must be.

    `is_met`: the worker died where it should. What an environment does once more or less in some lives (a webhook that
    comes before a push has quite ended is looked at differently) may be in the trace and in none of its lives.
    """

    kill: Kill
    seconds: float
    leaked: int = 0
    error: str = ""
    is_met: bool = True


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[tuple[Client, Ports]]:
    """Temporal, Postgres and Valkey for all lanes."""
    async with AsyncExitStack() as stack:
        ports = Ports(
            stack.enter_context(temporal_server(folder)),
            stack.enter_context(postgres_server(folder / "postgres")),
            stack.enter_context(valkey_server(folder)),
        )
        yield await _connected(ports.temporal), ports


async def traced(client: Client, ports: Ports, folder: Path) -> tuple[list[Kill], set[str]]:
    """The kill points of a clean run of every scene, and the names of all units that were seen."""
    found: list[Kill] = []
    units: set[str] = set()
    for number, (name, scene) in enumerate(SCENES.items()):
        async with lane(client, ports, folder, number, BUILD_SLOTS[name]) as one:
            async with asyncio.timeout(TRIAL_TIMEOUT_S):
                one.begin()
                await scene(one, 1)
            # What an earlier scene has covered is not killed again here.
            found += kills(name, {key: marks for key, marks in one.trace.items() if _is_stable(key, units)})
            units |= {unit for unit, _ in one.trace}
    return found, units


def _is_stable(key: tuple[str, int], covered: set[str]) -> bool:
    """Comments that follow each other closely become one, so how many there are is chance but for the first two."""
    unit, occurrence = key
    return unit not in covered and (unit != "publish" or occurrence <= 2)


async def run(client: Client, ports: Ports, folder: Path, chosen: Sequence[Kill], lanes: int) -> list[Trial]:
    """One trial per kill, in `lanes` lanes; each lane keeps to one scene, for build slots are the worker's setting."""
    waiting: dict[str, list[Kill]] = {name: [kill for kill in chosen if kill.scene == name] for name in SCENES}
    done: list[Trial] = []

    async def work(number: int) -> None:
        while name := max((n for n in waiting if waiting[n]), key=lambda n: len(waiting[n]), default=""):
            async with lane(client, ports, folder, number, BUILD_SLOTS[name]) as one:
                numbers = itertools.count(1)
                while waiting[name]:
                    trial = await _met(one, numbers, waiting[name].pop(0))
                    done.append(trial)
                    print(f"{len(done):4}  {trial.seconds:5.1f} s  {trial.kill.name}  {trial.error}", flush=True)
                    if trial.error:
                        break  # What it left behind would spoil the next one.

    async with asyncio.TaskGroup() as group:
        for number in range(lanes):
            group.create_task(work(number))
    return done


async def _met(one: Lane, numbers: Iterator[int], kill: Kill) -> Trial:
    """A life in which the worker died at this point; those that took another turn are lived again."""
    for _ in range(LIVES):
        trial = await _trial(one, next(numbers), kill)
        if trial.error or one.director.has_killed:
            return trial
    return replace(trial, is_met=False)


async def _trial(one: Lane, pr: int, kill: Kill) -> Trial:
    began, error = time.monotonic(), ""
    one.begin(kill)
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            await SCENES[kill.scene](one, pr)
    except (AssertionError, TimeoutError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Trial(kill, time.monotonic() - began, len(one.world.cloud.alive), error)


async def _connected(port: int) -> Client:
    async with asyncio.timeout(60):
        while True:
            try:
                return await Client.connect(f"127.0.0.1:{port}", data_converter=CONVERTER)
            except RuntimeError:
                await asyncio.sleep(0.1)
