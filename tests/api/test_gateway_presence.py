"""Heartbeats, routes, and agents that fall silent."""

from __future__ import annotations

from redis.asyncio import Redis
from sqlalchemy import text
from temporalio.client import Client

from agent.protocol import Ack, AgentState, Heartbeat, Outcome, Prepare, Result, Service
from api.gateway.beats import SETTLED_S
from edge.routes import Route, RouteStatus
from stagely import routing
from stagely.db.queries import sweeps
from tests.api.ledger import HASH, Ledger
from tests.api.wire import connected
from tests.api.world import Clock, OpenGateway, Running, eventually, identity, signals, start_owner
from workflows.messages import AgentEventKind, CommandOrder, FailureReport


async def test_heartbeat_of_a_preview_keeps_its_route_and_shows_its_services(
    gateway: Running, ledger: Ledger, redis: Redis, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, role="preview")
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE environments SET vm_id = 'vm-1' WHERE id = 'env-1'"))
    await routing.announce(redis, {HASH: Route(RouteStatus.READY, "guestbook", "local", 7, "env-1", "10.0.0.2", 9443)})
    await redis.expire(f"route:{HASH}", 10)

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Heartbeat(AgentState.HEALTHY, (Service("web", "running", "healthy"),)))

        async def is_refreshed() -> bool:
            return int(await redis.ttl(f"route:{HASH}")) > 3000

        await eventually(is_refreshed)

    environment = await ledger.environment()
    assert environment.services == [{"name": "web", "status": "running", "health": "healthy", "exit_code": None}]
    assert environment.last_heartbeat is not None


async def test_heartbeat_behind_a_result_is_written_although_it_says_nothing_new(
    open_gateway: OpenGateway, ledger: Ledger, temporal_client: Client
) -> None:
    clock, owner = Clock(), await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, role="preview")
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE environments SET vm_id = 'vm-1' WHERE id = 'env-1'"))
    runs = Heartbeat(AgentState.HEALTHY, (Service("web", "running", "healthy"),))

    async with open_gateway(clock=clock) as running, connected(running.address, identity("vm-1")) as (agent, _):

        async def is_shown() -> bool:
            return len((await ledger.environment()).services) == 1

        await agent.say(runs)
        await eventually(is_shown)
        await agent.say(Result(1, "cmd-nobodys", Outcome.SUCCEEDED))
        await agent.hear(Ack)
        async with ledger.engine.begin() as db:
            await db.execute(text("UPDATE environments SET services = '[]'"))
        clock.advance(SETTLED_S)
        await agent.say(runs)

        await eventually(is_shown)


async def test_heartbeat_does_not_bring_back_a_withdrawn_route(
    gateway: Running, ledger: Ledger, redis: Redis, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, role="preview")
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE environments SET vm_id = 'vm-1' WHERE id = 'env-1'"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Heartbeat(AgentState.HEALTHY))

        async def is_noted() -> bool:
            return (await ledger.environment()).last_heartbeat is not None

        await eventually(is_noted)

    assert await redis.exists(f"route:{HASH}") == 0


async def test_heartbeat_of_a_builder_leaves_the_environment_alone(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        first = (await ledger.vm("vm-1")).last_seen_at
        await agent.say(Heartbeat(AgentState.BUILDING, (Service("evil", "running"),)))

        async def is_noted() -> bool:
            return bool((await ledger.vm("vm-1")).last_seen_at > first)

        await eventually(is_noted)

    assert (await ledger.environment()).services == []


async def test_silent_builder_is_reported_lost_once(
    open_gateway: OpenGateway, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)

    async with open_gateway(builder_silence_s=1.0) as running:
        async with connected(running.address, identity("vm-1")):
            pass

        async def owner_knows() -> bool:
            return "lost" in [event.kind for event in await signals(owner)]

        await eventually(owner_knows)

    assert await ledger.events("vm-1") == [(-1, "lost"), (0, "online")]
    assert [(event.kind, event.seq) for event in await signals(owner)] == [("lost", 0)]


async def test_machine_whose_agent_never_speaks_is_given_up_after_its_boot_time(
    open_gateway: OpenGateway, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, state="running")
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE vms SET running_at = now()"))

    async with open_gateway(builder_silence_s=1.0, boot_timeout_s=1.0):

        async def owner_knows() -> bool:
            return len(await signals(owner)) == 1

        await eventually(owner_knows)

    (event,) = await signals(owner)
    assert event.kind is AgentEventKind.LOST
    assert event.failure == FailureReport(
        "vm_boot",
        "VM vm-1 was given up: its agent's first contact did not come within 1 s of its creation",
        code="boot_timeout",
    )


async def test_result_of_a_preparation_closes_its_command_and_bothers_no_workflow(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(CommandOrder("run-1/prepare", "vm-1", "prepare", "env-1", "run-1", pull=("redis:7",)))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.hear(Prepare)
        await agent.say(Result(1, "run-1/prepare", Outcome.SUCCEEDED))
        await agent.hear_until(Ack)

    assert await ledger.answered_at("run-1/prepare") is not None
    assert await signals(owner) == []


async def test_gateway_that_just_started_calls_nobody_silent(open_gateway: OpenGateway, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1", state="running")
    await ledger.add_vm("vm-2", role="preview", state="running")
    async with ledger.engine.begin() as db:
        await db.execute(
            text("UPDATE vms SET online_at = now() - interval '1 h', last_seen_at = now() - interval '1 h'")
        )
    clock = Clock()

    async def is_lost(vm_id: str) -> bool:
        return (-1, "lost") in await ledger.events(vm_id)

    async with open_gateway(clock, builder_silence_s=600.0, preview_silence_s=5.0):
        clock.advance(60)
        await eventually(lambda: is_lost("vm-2"))  # The scan that found it has judged vm-1 too.
        lost_at_first = await is_lost("vm-1")
        clock.advance(600)
        await eventually(lambda: is_lost("vm-1"))

    assert not lost_at_first


async def test_gateway_says_since_when_it_listens(open_gateway: OpenGateway, ledger: Ledger) -> None:
    async with open_gateway():
        await eventually(lambda: sweeps.is_anyone_listening(ledger.engine, for_s=0.5))

        too_early = await sweeps.is_anyone_listening(ledger.engine, for_s=60.0)

    assert not too_early


async def test_gateway_that_missed_its_beats_listens_anew(ledger: Ledger) -> None:
    await sweeps.note_gateway(ledger.engine, "gateway-1")
    async with ledger.engine.begin() as db:
        await db.execute(
            text("UPDATE gateway_beats SET since = now() - interval '1 h', beat_at = now() - interval '31 s'")
        )

    await sweeps.note_gateway(ledger.engine, "gateway-1")

    assert not await sweeps.is_anyone_listening(ledger.engine, for_s=60.0)


async def test_gateway_that_keeps_its_beats_has_listened_all_the_time(ledger: Ledger) -> None:
    await sweeps.note_gateway(ledger.engine, "gateway-1")
    async with ledger.engine.begin() as db:
        await db.execute(
            text("UPDATE gateway_beats SET since = now() - interval '1 h', beat_at = now() - interval '9 s'")
        )

    await sweeps.note_gateway(ledger.engine, "gateway-1")

    assert await sweeps.is_anyone_listening(ledger.engine, for_s=3000.0)


async def test_gateway_that_stopped_listens_no_more(ledger: Ledger) -> None:
    await sweeps.note_gateway(ledger.engine, "gateway-1")
    async with ledger.engine.begin() as db:
        await db.execute(
            text("UPDATE gateway_beats SET since = now() - interval '1 h', beat_at = now() - interval '31 s'")
        )

    assert not await sweeps.is_anyone_listening(ledger.engine, for_s=60.0)


async def test_beats_of_long_ago_are_forgotten(ledger: Ledger) -> None:
    await sweeps.note_gateway(ledger.engine, "gateway-1")
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE gateway_beats SET beat_at = now() - interval '25 h'"))

    await sweeps.note_gateway(ledger.engine, "gateway-2")

    async with ledger.engine.connect() as db:
        assert list((await db.execute(text("SELECT instance FROM gateway_beats"))).scalars()) == ["gateway-2"]
