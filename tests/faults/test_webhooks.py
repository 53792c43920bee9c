"""Webhooks late, early, twice, all at once or not at all: the pull request as GitHub has it is what comes true."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.faults.conftest import Note
from tests.faults.stage import READY, SETTLE_S, Stage
from tests.faults.webhooks import SEED, every_delivery, run_all

ORDERS, SAMPLE = 120, 16
PUSHES = 5


async def test_sixteen_orders_of_duplicated_webhooks_end_as_the_pull_request_is(here: Stage) -> None:
    chosen = random.Random(SEED).sample(every_delivery(), SAMPLE)

    wrong = await run_all(here, chosen, at_once=8)

    assert wrong == [], f"seed {SEED}"
    assert here.world.cloud.alive == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_all_orders_of_duplicated_webhooks_end_as_the_pull_request_is(here: Stage, note: Note) -> None:
    deliveries = every_delivery()
    began = time.monotonic()

    wrong = await run_all(here, deliveries, at_once=8)

    note("webhook orders", "lives", len(deliveries), "lives")
    note("webhook orders", "failed", len(wrong), "lives")
    note("webhook orders", "leaked_vms", len(here.world.cloud.alive), "VMs")
    note("webhook orders", "took", round(time.monotonic() - began, 1), "s")
    assert wrong == []
    assert len(deliveries) == 2 * ORDERS
    assert here.world.cloud.alive == {}


@pytest.mark.parametrize("gap_s", [pytest.param(0.3, id="quick"), pytest.param(2.0, id="ten", marks=pytest.mark.slow)])
async def test_five_pushes_in_ten_seconds_deploy_the_last_one_and_leave_one_machine(here: Stage, gap_s: float) -> None:
    shas = []
    for number in range(PUSHES):
        shas.append(here.github.push(1))
        await here.world.webhook(1, "opened" if number == 0 else "synchronize")
        await asyncio.sleep(gap_s)
    last_push = time.monotonic()

    await here.until_ready(1, shas[-1])

    assert time.monotonic() - last_push < SETTLE_S
    deployed = [order.deploy.sha for order in here.world.agents.seen if order.deploy]
    assert deployed == [sha for sha in shas if sha in deployed], "commits were deployed out of their order"
    assert deployed[-1] == shas[-1]
    here.github.close(1)
    await here.world.webhook(1, "closed")
    await here.until_gone(1)


async def test_a_lost_closed_webhook_is_made_up_for_by_a_sweep(here: Stage) -> None:
    sha = here.github.push(1)
    await here.world.webhook(1, "opened")
    await here.until_ready(1, sha)
    here.github.close(1)

    await here.sweep()

    await here.until_gone(1)


async def test_a_lost_push_webhook_is_made_up_for_by_the_next_one(here: Stage) -> None:
    sha = here.github.push(1)
    await here.world.webhook(1, "opened")
    await here.world.until(1, READY, sha)
    here.github.push(1)
    latest = here.github.push(1)

    await here.world.webhook(1, "labeled")

    await here.until_ready(1, latest)
