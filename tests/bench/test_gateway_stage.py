"""Targets in turn: one that fails is named and ends only itself."""

from __future__ import annotations

import asyncio

from bench.gateway.stage import Incomplete, Played, in_turn
from bench.gateway.targets import TargetFailed
from bench.measures import Measure

FIGURE = Measure("herd", "stagely", "back_50", 5.0, "s")


async def good() -> Played:
    return Played([FIGURE], [])


async def failing() -> Played:
    raise TargetFailed("bare ended with 1")


async def failing_beside_others() -> Played:
    async with asyncio.TaskGroup() as group:
        group.create_task(failing())
        await asyncio.Event().wait()
    raise AssertionError("the group ends with its failure")


async def half() -> Played:
    return Played([], ["2 agents were dropped"])


async def test_a_target_that_fails_does_not_take_the_other_s_figures() -> None:
    played = await in_turn("herd", {"bare": failing, "stagely": good})

    assert played == Played([FIGURE], ["herd, bare: bare ended with 1"])


async def test_a_failure_inside_a_group_is_named_by_itself() -> None:
    played = await in_turn("herd", {"bare": failing_beside_others})

    assert played == Played([], ["herd, bare: bare ended with 1"])


async def test_what_is_missing_is_named_with_its_target() -> None:
    played = await in_turn("density", {"stagely": half})

    assert played.missing == ["density, stagely: 2 agents were dropped"]


def test_a_failed_target_is_an_incomplete_scenario() -> None:
    assert issubclass(TargetFailed, Incomplete)
