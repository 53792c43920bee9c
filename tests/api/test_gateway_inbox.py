"""What agents say: stored once, in order, confirmed after the commit, and results told to the owner."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from agent.protocol import Ack, AgentState, Failure, Heartbeat, Log, Outcome, Refused, Result, Service, Shutdown, Status
from api.clients import REDIS_TIMEOUT_S
from api.gateway.forward import Forwarder
from api.gateway.sessions import Sessions
from api.gateway.websocket import GAP, REVOKED
from stagely.db.queries.timeline import set_run
from stagely.states import RunState
from tests.api.ledger import Ledger, build_order, deploy_order
from tests.api.wire import DEADLINE_S, WireAgent, connected
from tests.api.world import OpenGateway, Running, eventually, identity, signals, start_owner
from tests.services import free_port, temporal_server
from workflows.messages import AgentEventKind, FailureReport, ServiceReport

BUILD = "run-1/b-1/1"
LINE = "#5 [2/4] RUN make\n"


async def test_log_is_stored_and_then_confirmed(gateway: Running, ledger: Ledger, redis: Redis) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))
    async with redis.pubsub() as channel:
        await channel.subscribe("logs:env-1")
        await channel.get_message(timeout=5)

        async with connected(gateway.address, identity("vm-1")) as (agent, _):
            await agent.say(Log(1, BUILD, "build/api", LINE), Log(2, BUILD, "build/api", "zwei ✓\n"))
            ack = await agent.hear_until(Ack)
            nudge = await channel.get_message(timeout=5)

    assert ack == Ack(2)
    assert await ledger.said("vm-1") == [("build/api", f"{LINE}zwei ✓\n")]
    assert nudge is not None
    assert nudge["channel"] == b"logs:env-1"


async def test_resend_after_a_lost_line_stores_nothing_twice(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent_of_vm = identity("vm-1")
    async with connected(gateway.address, agent_of_vm) as (agent, _):
        await agent.say(Log(1, "", "deploy", "one\n"), Log(2, "", "deploy", "two\n"))
        await agent.hear_until(Ack)

    async with connected(gateway.address, agent_of_vm) as (agent, welcome):
        await agent.say(Log(2, "", "deploy", "two\n"), Log(3, "", "deploy", "three\n"))
        ack = await agent.hear_until(Ack)

    assert welcome.acked_seq == 2
    assert ack == Ack(3)
    assert await ledger.said("vm-1") == [("deploy", "one\ntwo\nthree\n")]


async def test_new_boot_counts_from_one_again(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent_of_vm = identity("vm-1")
    async with connected(gateway.address, agent_of_vm) as (agent, _):
        await agent.say(Log(1, "", "deploy", "before\n"))
        await agent.hear_until(Ack)
    agent_of_vm.boot_id = "boot-2"

    async with connected(gateway.address, agent_of_vm) as (agent, welcome):
        await agent.say(Log(1, "", "deploy", "after\n"))
        await agent.hear_until(Ack)

    assert welcome.acked_seq == 0
    assert [data for _, _, data in await ledger.chunks("vm-1")] == [b"before\n", b"after\n"]


async def test_gap_in_the_numbers_closes_the_line(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Log(2, "", "deploy", "too early\n"))
        refused = await agent.hear_until(Refused)
        code = await agent.close_code()

    assert (refused.code, refused.message, refused.final) == ("gap", "expected seq 1, got 2", False)
    assert code == GAP
    assert await ledger.chunks("vm-1") == []


async def test_result_reaches_the_owner_before_it_is_confirmed(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    failure = Failure("build", "make failed", "api", 2, ("line",) * 30)

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        phases = {"clone": 0.5, "build": 2.0, "lunch": 1.0}
        await agent.say(Result(1, BUILD, Outcome.FAILED, failure=failure, phases=phases))
        ack = await agent.hear_until(Ack)
        events = await signals(owner)

    result = events[-1]
    assert ack == Ack(1)
    assert (result.kind, result.command_id, result.outcome, result.seq) == (AgentEventKind.RESULT, BUILD, "failed", 1)
    assert result.failure == FailureReport("build", "make failed", "api", 2, ("line",) * 20)
    assert result.phases == {"clone": 0.5, "build": 2.0}
    assert await ledger.answered_at(BUILD) is not None


async def test_repeated_result_is_told_once(gateway: Running, ledger: Ledger, temporal_client: Client) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm = identity("vm-1")
    result = Result(1, BUILD, Outcome.SUCCEEDED, digest="sha256:" + "b" * 64)

    async with connected(gateway.address, agent_of_vm) as (agent, _):
        await agent.say(result, result)
        await agent.hear_until(Ack)
    async with connected(gateway.address, agent_of_vm) as (agent, welcome):
        await agent.say(result, Log(2, BUILD, "build/api", LINE))
        ack = await agent.hear_until(Ack)

    assert welcome.acked_seq == 1
    assert ack == Ack(2)
    assert [event.kind for event in await signals(owner)] == ["result"]


async def test_result_of_a_foreign_command_is_told_to_nobody(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_vm("vm-2", owner.id)
    await ledger.add_command(build_order("vm-2"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Result(1, BUILD, Outcome.SUCCEEDED, digest="sha256:" + "e" * 64))
        ack = await agent.hear_until(Ack)

    assert ack == Ack(1)
    assert await ledger.events("vm-1") == [(0, "online"), (1, "stray")]
    assert await ledger.answered_at(BUILD) is None
    assert "result" not in [event.kind for event in await signals(owner)]


async def test_result_of_a_vm_without_owner_is_confirmed_and_the_vm_shut_down(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1", owner="run/that-ended")
    await ledger.add_command(build_order("vm-1"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Result(1, BUILD, Outcome.CANCELLED))
        shutdown = await agent.hear_until(Shutdown)
        ack = await agent.hear_until(Ack)

    assert shutdown.reason == "workflow run/that-ended that owned this VM has ended"
    assert ack == Ack(1)


async def test_temporal_away_delays_the_confirmation_and_loses_nothing(
    open_gateway: OpenGateway, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    folder = tmp_path_factory.mktemp("late-temporal")
    await ledger.add_vm("vm-1", owner="run/late")
    await ledger.add_command(build_order("vm-1"))

    async with (
        open_gateway(temporal_address=f"127.0.0.1:{port}") as running,
        connected(running.address, identity("vm-1")) as (agent, _),
    ):
        await agent.say(Result(1, BUILD, Outcome.SUCCEEDED, digest="sha256:" + "b" * 64))

        async def is_stored() -> bool:
            return (1, "result") in await ledger.events("vm-1")

        await eventually(is_stored)
        answered_while_away = await ledger.answered_at(BUILD)
        with temporal_server(folder, port):
            ack = await agent.hear_until(Ack)
            answered = await ledger.answered_at(BUILD)

    assert answered_while_away is None
    assert ack == Ack(1)
    assert answered is not None


async def test_steps_show_what_a_command_does_now(
    gateway: Running, ledger: Ledger, temporal_client: Client, redis: Redis
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Status(1, BUILD, AgentState.BUILDING, "clone"))
        await agent.hear_until(Ack)
        first = await ledger.steps()
        await agent.say(Status(2, BUILD, AgentState.BUILDING, "build"))
        await agent.hear_until(Ack)
        second = await ledger.steps()
        await agent.say(Result(3, BUILD, Outcome.FAILED))
        await agent.hear_until(Ack)

    assert first == [("clone", "api", "running")]
    assert second == [("clone", "api", "completed"), ("build", "api", "running")]
    assert await ledger.steps() == [("clone", "api", "completed"), ("build", "api", "failed")]


async def test_command_begun_anew_shows_its_steps_from_the_first_on(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Status(1, BUILD, AgentState.BUILDING, "clone"))
        await agent.hear_until(Ack)
        await agent.say(Status(2, BUILD, AgentState.BUILDING, "build"))
        await agent.hear_until(Ack)
        await agent.say(Status(3, BUILD, AgentState.BUILDING, "clone"))
        await agent.hear_until(Ack)
        first = await ledger.steps()
        await agent.say(Status(4, BUILD, AgentState.BUILDING, "build"))
        await agent.hear_until(Ack)

    assert first == [("clone", "api", "running")]
    assert await ledger.steps() == [("clone", "api", "completed"), ("build", "api", "running")]


async def test_steps_of_a_run_that_has_ended_stay_as_they_are(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))
    await ledger.add_run()
    async with ledger.engine.begin() as db:
        await set_run(db, "run-1", RunState.CANCELLED)
    ended = await ledger.steps()

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.say(Status(1, BUILD, AgentState.BUILDING, "clone"))
        await agent.hear_until(Ack)

    assert ("build", "api", "cancelled") in ended
    assert await ledger.steps() == ended


async def test_services_of_a_result_travel_with_it(gateway: Running, ledger: Ledger, temporal_client: Client) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, role="preview")
    await ledger.add_command(deploy_order("vm-1"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        services = (Service("web", "running", "healthy"), Service("job", "exited", "", 0))
        await agent.say(Result(1, "run-1/deploy", Outcome.SUCCEEDED, services=services))
        await agent.hear_until(Ack)

    [result] = await signals(owner)
    assert result.services == (ServiceReport("web", "running", "healthy"), ServiceReport("job", "exited", "", 0))


async def test_message_that_postgres_refuses_fails_only_its_sender(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_vm("vm-2")
    await ledger.refuse_lines("poison")

    async with (
        connected(gateway.address, identity("vm-1")) as (bad_agent, _),
        connected(gateway.address, identity("vm-2")) as (good_agent, _),
    ):
        async with ledger.inbox_held():
            await bad_agent.say(Log(1, "", "deploy", "first\n"))
            await eventually(ledger.is_inbox_waited_for)
            await bad_agent.say(Log(2, "", "deploy", "poison"))  # These two are one batch, behind the one that waits.
            await good_agent.say(Log(1, "", "deploy", "fine\n"))
            await have_arrived(bad_agent, good_agent)
        ack = await good_agent.hear_until(Ack)
        refused = await bad_agent.hear_until(Refused)

    assert ack == Ack(1)
    assert (refused.code, refused.final) == ("store_refused", False)
    assert [seq for seq, _, _ in await ledger.chunks("vm-1")] == [1]
    assert [seq for seq, _, _ in await ledger.chunks("vm-2")] == [1]


async def test_nothing_is_stored_behind_a_message_that_postgres_refused(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.refuse_lines("poison")
    agent_of_vm = identity("vm-1")

    async with connected(gateway.address, agent_of_vm) as (agent, _):
        async with ledger.inbox_held():
            await agent.say(Log(1, "", "deploy", "poison"))
            await eventually(ledger.is_inbox_waited_for)
            await agent.say(Log(2, "", "deploy", "behind it\n"))
            await have_arrived(agent)
        await agent.hear_until(Refused)
    async with connected(gateway.address, agent_of_vm) as (agent, welcome):
        await agent.say(Log(1, "", "deploy", "harmless\n"))
        await agent.hear_until(Ack)

    assert welcome.acked_seq == 0
    assert [seq for seq, _, _ in await ledger.chunks("vm-1")] == [1]


async def test_gateway_that_stops_stores_what_it_received_and_sends_the_agents_back(
    open_gateway: OpenGateway, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    agent_of_vm = identity("vm-1")

    async with open_gateway() as running, connected(running.address, agent_of_vm) as (agent, _):
        async with ledger.inbox_held():
            await agent.say(Log(1, "", "deploy", "last words\n"))
            await have_arrived(agent)
            running.gateway.stop()
            await eventually(ledger.is_inbox_waited_for)
        code = await agent.close_code()
    async with open_gateway() as running, connected(running.address, agent_of_vm) as (_, welcome):
        pass

    assert code == 1012
    assert welcome.acked_seq == 1


async def test_redis_that_hangs_does_not_hold_up_the_inbox(open_gateway: OpenGateway, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_vm("vm-2")

    with socket.create_server(("127.0.0.1", 0)) as deaf:  # Takes connections and never answers.
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        async with (
            open_gateway(redis_url=url) as running,
            connected(running.address, identity("vm-1")) as (agent, _),
            connected(running.address, identity("vm-2")) as (revoked, _),
        ):
            began = time.monotonic()
            for seq in range(1, 4):
                await agent.say(Log(seq, "", "deploy", "line\n"))
                await agent.hear_until(Ack)
            took_s = time.monotonic() - began
            await agent.say(Heartbeat(AgentState.IDLE))
            await ledger.set_vm_state("vm-2", "destroying")
            code = await revoked.close_code()

    assert took_s < REDIS_TIMEOUT_S
    assert code == REVOKED


async def test_event_of_an_unknown_shape_holds_up_nothing_else(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_event("vm-1", 1, "result", {"failure": 3})
    await ledger.add_event("vm-1", 2, "result", {"outcome": "succeeded"})

    async def is_told() -> bool:
        return [event.seq for event in await signals(owner)] == [2]

    await eventually(is_told)


async def test_nudges_for_others_do_not_hold_up_old_events(
    engine: AsyncEngine, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    forwarder = Forwarder(engine, temporal_client, Sessions(time.monotonic))

    async def nudge_others() -> None:
        while True:
            forwarder.nudge(["vm-2"])
            await asyncio.sleep(0.05)

    async def is_told() -> bool:
        return [event.seq for event in await signals(owner)] == [1]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(forwarder.run()), group.create_task(nudge_others())]
        await asyncio.sleep(0.1)  # The first scan is over: what comes now has to wait for the second.
        await ledger.add_event("vm-1", 1, "result", {"outcome": "succeeded"})
        await eventually(is_told)
        for task in tasks:
            task.cancel()


async def have_arrived(*agents: WireAgent) -> None:
    """Wait until the gateway has read what these agents said: it answers pings in the order of arrival."""
    for agent in agents:
        async with asyncio.timeout(DEADLINE_S):
            await (await agent.socket.ping())
