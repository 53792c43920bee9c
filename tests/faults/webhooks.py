"""A pull request's events in every order in which GitHub may deliver them. Pure but for `deliver`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from tests.faults.stage import NO_BUILDS, Stage

HISTORY = ("opened", "synchronize", "synchronize", "closed", "reopened")
"""What happens to the pull request. An event may be delivered late, but never before it happened."""

SEED = 20261124
LARGEST_GAP_S = 0.15  # Between two deliveries: from "in one workflow task" to "while the last one is acted upon".


@dataclass(frozen=True, slots=True)
class Delivery:
    """`order`: indices of HISTORY as they arrive. `ends_closed`: closed once more before the last one arrives,
    and nobody hears of that.
    """

    order: tuple[int, ...]
    ends_closed: bool

    @property
    def name(self) -> str:
        events = " ".join(HISTORY[i] for i in self.order)
        return f"{events}, then {'closed' if self.ends_closed else 'open'}"


def every_delivery() -> list[Delivery]:
    """All orders, each for both ends."""
    orders = list(permutations(range(len(HISTORY))))
    return [Delivery(order, ends_closed) for order in orders for ends_closed in (False, True)]


async def deliver(here: Stage, pr: int, delivery: Delivery) -> str:
    """Let it happen and be told, every event twice; gives the head's commit."""
    gaps = random.Random(f"{SEED}/{delivery.name}")
    sha, happened = "", 0
    for place, index in enumerate(delivery.order):
        while happened <= index:
            sha = _happen(here, pr, HISTORY[happened]) or sha
            happened += 1
        if delivery.ends_closed and place == len(delivery.order) - 1:
            here.github.close(pr)
        await here.world.webhook(pr, HISTORY[index], f"{pr}/{index}")
        await asyncio.sleep(gaps.uniform(0, LARGEST_GAP_S))
        again = delivery.order[gaps.randrange(place + 1)]
        await here.world.webhook(pr, HISTORY[again], f"{pr}/{again}")
    for index in delivery.order:
        await here.world.webhook(pr, HISTORY[index], f"{pr}/{index}")
    return sha


async def run_all(here: Stage, deliveries: Sequence[Delivery], at_once: int) -> list[str]:
    """What went wrong, a line per order."""
    gate = asyncio.Semaphore(at_once)
    wrong: list[str] = []

    async def one(pr: int, delivery: Delivery) -> None:
        async with gate:
            try:
                await _one(here, pr, delivery)
            except (AssertionError, TimeoutError) as error:
                wrong.append(f"{delivery.name}: {type(error).__name__} {error}")

    async with asyncio.TaskGroup() as group:
        for pr, delivery in enumerate(deliveries, start=1):
            group.create_task(one(pr, delivery))
    return wrong


async def _one(here: Stage, pr: int, delivery: Delivery) -> None:
    sha = await deliver(here, pr, delivery)
    if not delivery.ends_closed:
        await here.until_ready(pr, sha)
        here.github.close(pr)
        await here.world.webhook(pr, "closed")
    await here.until_gone(pr)


def _happen(here: Stage, pr: int, event: str) -> str:
    """The new commit, if there is one."""
    match event:
        case "opened" | "synchronize":
            return here.github.push(pr, NO_BUILDS)
        case "closed":
            here.github.close(pr)
        case "reopened":
            here.github.reopen(pr)
    return ""
