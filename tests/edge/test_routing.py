"""Routes as they change, and Redis as it comes and goes: seen by a visitor of a running edge."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from edge.config import Limits
from edge.routes import RouteStatus, encode, key_of
from tests.edge.conftest import Announce, ready_route, running_edge
from tests.edge.test_pages import waiting_route
from tests.edge.wire import WAIT_S, Message, Visitor, origin, until, visitor
from tests.valkey import Valkey

SEEN_WITHIN_S = 0.1  # Issue 6.
CALM = Limits(sweep_s=0.05, drain_s=0.2)


async def ask(browser: Visitor, label: str) -> Message:
    return await browser.ask(f"GET / HTTP/1.1\r\nHost: {label}.localhost\r\n\r\n".encode())


async def until_status(browser: Visitor, label: str, status: int, within_s: float = 30) -> float:
    """Ask again and again; how long it took in seconds."""
    begun = time.monotonic()
    async with asyncio.timeout(within_s):
        while (await ask(browser, label)).status != status:  # noqa: ASYNC110  # The edge has no event to wait for.
            await asyncio.sleep(0.002)
    return time.monotonic() - begun


async def test_announced_and_withdrawn_routes_are_seen_within_a_tenth_of_a_second(port: int, redis: Redis) -> None:
    announced_s, withdrawn_s = [], []
    async with origin() as vm, visitor(port) as browser:
        before = await ask(browser, "fresh")
        for _ in range(5):
            await redis.set(key_of("fresh"), encode(ready_route(vm.port)))
            announced_s.append(await until_status(browser, "fresh", 200))
            await redis.delete(key_of("fresh"))
            withdrawn_s.append(await until_status(browser, "fresh", 404))

    assert before.status == 404
    # The best of five: a busy machine may delay some, while an answer kept for a time would delay all.
    assert min(announced_s) < SEEN_WITHIN_S
    assert min(withdrawn_s) < SEEN_WITHIN_S


async def test_route_from_building_to_ready_to_another_machine(port: int, redis: Redis, announce: Announce) -> None:
    async with origin() as one, origin() as two, visitor(port) as browser:
        label = await announce(waiting_route(RouteStatus.BUILDING))
        await until_status(browser, label, 503)
        await redis.set(key_of(label), encode(ready_route(one.port)))
        await until_status(browser, label, 200)
        await redis.set(key_of(label), encode(ready_route(two.port)))
        async with asyncio.timeout(WAIT_S):
            while not two.requests:
                await ask(browser, label)
        one.requests.clear()
        await ask(browser, label)

    assert one.requests == []


async def test_withdrawing_closes_idle_connections_to_the_machine(redis_url: str, redis: Redis) -> None:
    patient = Limits(sweep_s=0.05, drain_s=0.2, pool_idle_s=3600)
    async with origin() as vm, running_edge(redis_url, patient) as edge, visitor(edge.port) as browser:
        await redis.set(key_of("label"), encode(ready_route(vm.port)))
        await ask(browser, "label")
        await redis.delete(key_of("label"))
        await until(lambda: not vm.open_writers)

    assert vm.connections == 1


async def test_heartbeat_that_only_prolongs_a_route_keeps_its_connections(
    port: int, redis: Redis, announce: Announce
) -> None:
    async with origin() as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        await ask(browser, label)
        await redis.expire(key_of(label), 3600)
        await redis.set(key_of(label), encode(ready_route(vm.port, phase="healthy")), ex=3600)
        await ask(browser, label)

    assert vm.connections == 1


async def test_connections_are_never_shared_between_environments_on_one_address(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        await ask(browser, await announce(ready_route(vm.port, environment="one")))
        await ask(browser, await announce(ready_route(vm.port, environment="two")))

    assert vm.connections == 2


async def test_flushed_redis_leaves_no_route_standing(port: int, redis: Redis, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as browser:
        label = await announce(ready_route(vm.port))
        await ask(browser, label)
        await redis.flushall()
        await until_status(browser, label, 404)


async def test_key_of_another_type_is_not_found_and_harms_no_other_route(
    port: int, redis: Redis, announce: Announce
) -> None:
    async with origin() as vm, visitor(port) as browser:
        await redis.lpush(key_of("odd"), "x")
        odd = await ask(browser, "odd")
        good = await ask(browser, await announce(ready_route(vm.port)))

    assert (odd.status, good.status) == (404, 200)


async def test_last_known_routes_are_served_while_redis_is_away_and_read_anew_when_it_is_back(
    own_valkey: Valkey,
) -> None:
    redis = Redis.from_url(own_valkey.url)
    async with origin() as vm, running_edge(own_valkey.url, CALM) as edge, visitor(edge.port) as browser:
        await redis.set(key_of("known"), encode(ready_route(vm.port)))
        await until_status(browser, "known", 200)

        own_valkey.kill()
        await until(lambda: edge.events("redis is away"))
        known, unknown = await ask(browser, "known"), await ask(browser, "unknown")
        await own_valkey.start()  # Empty.
        await until_status(browser, "known", 404)
        await redis.connection_pool.disconnect()
        await redis.set(key_of("known"), encode(ready_route(vm.port)))
        await until_status(browser, "known", 200)
    await redis.aclose()

    assert (known.status, unknown.status, unknown["retry-after"]) == (200, 503, "3")


async def test_frozen_redis_is_noticed_and_known_routes_go_on(own_valkey: Valkey) -> None:
    redis = Redis.from_url(own_valkey.url)
    async with origin() as vm, running_edge(own_valkey.url, CALM) as edge, visitor(edge.port) as browser:
        await redis.set(key_of("known"), encode(ready_route(vm.port)))
        await until_status(browser, "known", 200)

        own_valkey.freeze()
        unknown = await ask(browser, "unknown")
        known = await ask(browser, "known")
        own_valkey.thaw()
        await redis.delete(key_of("known"))
        await until_status(browser, "known", 404)
    await redis.aclose()

    assert (unknown.status, known.status) == (503, 200)


async def test_edge_without_redis_starts_says_so_and_finds_it_later(own_valkey: Valkey) -> None:
    own_valkey.kill()
    async with running_edge(own_valkey.url, CALM) as edge, visitor(edge.port) as browser, origin() as vm:
        before = await ask(browser, "label")
        await own_valkey.start()
        redis = Redis.from_url(own_valkey.url)
        await redis.set(key_of("label"), encode(ready_route(vm.port)))
        await until_status(browser, "label", 200)
        await redis.aclose()
        warnings = edge.events("listening without redis")

    assert before.status == 503
    assert len(warnings) == 1


async def test_user_that_may_only_read_routes_is_enough(own_valkey: Valkey) -> None:
    redis = Redis.from_url(own_valkey.url)
    await allow(redis, "reset on >secret resetchannels %R~route:* +get +ping +hello +auth +client|tracking")
    url = own_valkey.url.replace("redis://", "redis://edge:secret@")
    async with origin() as vm, running_edge(url, CALM) as edge, visitor(edge.port) as browser:
        unknown = await ask(browser, "label")
        await redis.set(key_of("label"), encode(ready_route(vm.port)))
        await until_status(browser, "label", 200)
    await redis.aclose()

    assert unknown.status == 404


async def test_user_that_may_not_read_routes_is_named_in_the_log(own_valkey: Valkey) -> None:
    redis = Redis.from_url(own_valkey.url)
    await allow(redis, "on >secret ~other:* +@all")
    await redis.aclose()
    url = own_valkey.url.replace("redis://", "redis://edge:secret@")
    async with running_edge(url, CALM) as edge:
        warnings = edge.events("redis is away")

    assert "NoPermissionError" in str(warnings[0]["error"])
    assert "secret" not in edge.log.getvalue()


async def test_host_over_its_rate_gets_429_and_others_do_not(own_valkey: Valkey) -> None:
    redis = Redis.from_url(own_valkey.url)
    async with origin() as vm, running_edge(own_valkey.url, CALM, rate_limit=5) as edge, visitor(edge.port) as browser:
        await redis.set(key_of("busy"), encode(ready_route(vm.port)))
        await redis.set(key_of("calm"), encode(ready_route(vm.port)))
        busy = [await ask(browser, "busy") for _ in range(12)]
        calm = await ask(browser, "calm")
    await redis.aclose()

    assert [a.status for a in busy[:5]] == [200] * 5
    assert (busy[11].status, busy[11]["retry-after"], calm.status) == (429, "1", 200)


async def test_two_labels_of_one_environment_lead_to_their_own_ports(port: int, announce: Announce) -> None:
    async with origin() as front, origin() as back, visitor(port) as browser:
        await ask(browser, await announce(ready_route(front.port)))
        await ask(browser, await announce(ready_route(back.port)))

    assert (len(front.requests), len(back.requests)) == (1, 1)


async def allow(redis: Redis, rules: str) -> None:
    """Make the user `edge` with these rules."""
    command = redis.execute_command("ACL", "SETUSER", "edge", *rules.split())  # type: ignore[no-untyped-call]
    await command
