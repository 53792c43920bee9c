"""Real rounds of bench.lifecycle with `bare`: one that goes well, one that does not, and a worker that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lifecycle.__main__ import plan
from bench.lifecycle.figures import of_round
from bench.lifecycle.link import WorkerFailed, worker_process
from bench.lifecycle.place import Place
from bench.lifecycle.rounds import Crowd
from bench.lifecycle.servers import Stores, stores
from bench.lifecycle.stage import play


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with stores(tmp_path_factory.mktemp("stores")) as running:
        yield running


async def test_one_environment_of_bare_lives_and_ends_with_every_figure(engines: Stores, tmp_path: Path) -> None:
    seen = await play("bare", Crowd(1), engines, tmp_path)

    assert seen.missing == ()
    assert 234 <= seen.events <= 262
    assert all(m.value > 0 for m in of_round(Crowd(1), "bare", seen, 1) if "postgres" not in m.metric)


async def test_what_is_not_ready_in_time_is_said(engines: Stores, tmp_path: Path) -> None:
    seen = await play("bare", Crowd(1, slack_s=-3.9), engines, tmp_path)

    assert seen.missing == ("only 0 of 1 environments are ready after 0 s",)
    assert of_round(Crowd(1), "bare", seen, 1) == []


async def test_a_worker_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    nowhere = Place(str(tmp_path), "127.0.0.1:1", "", "")

    with pytest.raises(ExceptionGroup) as failed:
        async with worker_process("bare", nowhere):
            await asyncio.Event().wait()

    assert failed.group_contains(WorkerFailed, match="(?s)the worker ended.*127.0.0.1:1")


def test_only_small_crowds_are_repeated() -> None:
    crowds = [Crowd(10), Crowd(100)]

    assert [(crowd.size, number) for crowd, number in plan(crowds, 2)] == [(10, 1), (10, 2), (100, 1)]
