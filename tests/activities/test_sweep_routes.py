"""The reaper's look at the route table."""

from __future__ import annotations

import time

from temporalio.testing import ActivityEnvironment

from activities.sweep_routes import RouteSweeps
from edge.routes import Route, RouteStatus
from stagely import routing
from tests.activities.yard import HOUR_S, Yard, new_sweep
from workflows.sweeps import Findings, Leftover, Sweep, SweepInput

ROUTE = Leftover.ROUTE


async def sweep_routes(yard: Yard, sweep: Sweep | None = None) -> Findings:
    return await ActivityEnvironment().run(RouteSweeps(yard.engine, yard.redis).sweep_routes, sweep or new_sweep())


async def announce(yard: Yard, label: str, environment_id: str, age_s: float = HOUR_S) -> None:
    route = Route(
        RouteStatus.READY, "app", "local", 1, environment_id, ip="10.0.0.1", port=9443, since=time.time() - age_s
    )
    await routing.announce(yard.redis, {label: route})


async def labels(yard: Yard) -> list[str]:
    keys = await yard.redis.keys("*")
    return sorted(key if isinstance(key, str) else key.decode() for key in keys)


async def test_route_of_a_gone_environment_is_withdrawn_at_the_second_sight(yard: Yard) -> None:
    await announce(yard, "left", await yard.environment(status="terminated"))

    first = await sweep_routes(yard)
    assert (first.seen, await labels(yard)) == ({ROUTE: 1}, ["route:left"])

    second = await sweep_routes(yard)
    assert (second.acted, await labels(yard)) == ({ROUTE: 1}, [])


async def test_route_of_an_unknown_environment_is_withdrawn(yard: Yard) -> None:
    await announce(yard, "left", "env-unknown")
    await sweep_routes(yard)

    assert (await sweep_routes(yard)).acted == {ROUTE: 1}


async def test_record_that_is_no_route_is_withdrawn(yard: Yard) -> None:
    await yard.redis.set("route:odd", "[]")
    await sweep_routes(yard)
    await sweep_routes(yard)

    assert await labels(yard) == []


async def test_routes_of_living_environments_and_other_keys_stay(yard: Yard) -> None:
    await announce(yard, "alive", await yard.environment())
    await yard.redis.set("something-else", "1")
    await sweep_routes(yard)
    await sweep_routes(yard)

    assert await labels(yard) == ["route:alive", "something-else"]


async def test_route_that_was_just_announced_is_not_looked_at(yard: Yard) -> None:
    await announce(yard, "fresh", "env-unknown", age_s=60)
    await sweep_routes(yard)

    assert (await sweep_routes(yard)).seen == {ROUTE: 0}


async def test_no_more_routes_are_withdrawn_than_the_ceiling_allows(yard: Yard) -> None:
    for label in ("a", "b", "c"):
        await announce(yard, label, "env-unknown")
    await sweep_routes(yard)

    found = await sweep_routes(yard, new_sweep(ceiling=2))

    assert (found.due, found.acted) == ({ROUTE: 3}, {ROUTE: 2})
    assert len(await labels(yard)) == 1


async def test_dry_run_withdraws_nothing(yard: Yard) -> None:
    dry = SweepInput(apart_s=0.0, is_dry_run=True)
    await announce(yard, "left", "env-unknown")
    await sweep_routes(yard)

    assert (await sweep_routes(yard, new_sweep(dry))).acted == {ROUTE: 0}
    assert await labels(yard) == ["route:left"]
