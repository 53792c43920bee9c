"""Who is let in, who is not, and who is shown out."""

from __future__ import annotations

import time

import pytest
from temporalio.client import Client
from websockets.exceptions import InvalidStatus

from agent.protocol import Heartbeat, Refused, Welcome
from api.gateway.websocket import REPLACED, REVOKED
from tests.api.ledger import IDLE, Ledger
from tests.api.wire import connected, dial
from tests.api.world import OpenGateway, Running, eventually, identity, signals, start_owner
from workflows.messages import AgentEventKind


async def test_first_hello_marks_the_vm_online_and_bothers_no_workflow(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    agent = identity("vm-1")

    async with connected(gateway.address, agent) as (_, welcome):
        vm = await ledger.vm("vm-1")

    assert welcome == Welcome(heartbeat_s=5.0, acked_seq=0)
    assert await signals(owner) == []
    assert vm.state == "running"
    assert vm.online_at is not None
    assert vm.public_key == agent.public_key
    assert (len(vm.session_sha256), len(vm.previous_session_sha256)) == (64, 64)


async def test_second_connect_of_the_same_boot_tells_the_owner_nothing_new(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    agent = identity("vm-1")

    async with connected(gateway.address, agent):
        pass
    async with connected(gateway.address, agent):
        pass

    assert await ledger.events("vm-1") == [(0, "online")]


async def test_token_of_another_vm_is_refused_for_good(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        await agent.greet(identity("vm-1", signed_for="vm-2"))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("token_of_another", True)
    assert (await ledger.vm("vm-1")).public_key == ""


async def test_expired_token_does_not_enrol(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        await agent.greet(identity("vm-1", issued_at=time.time() - 3600))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("token_expired", True)


async def test_bound_key_opens_without_a_token(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with connected(gateway.address, agent):
        pass
    agent.token = ""

    async with connected(gateway.address, agent) as (_, welcome):
        assert welcome.acked_seq == 0


async def test_stolen_token_with_another_key_is_refused(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    rightful, thief = identity("vm-1"), identity("vm-1")
    async with connected(gateway.address, rightful):
        pass

    async with dial(gateway.address) as agent:
        await agent.greet(thief)
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("key_mismatch", True)


@pytest.mark.parametrize("state", ["destroying", "gone"])
async def test_vm_that_is_being_destroyed_is_refused_for_good(gateway: Running, ledger: Ledger, state: str) -> None:
    await ledger.add_vm("vm-1", state=state)

    async with dial(gateway.address) as agent:
        await agent.greet(identity("vm-1"))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("vm_gone", True)


async def test_vm_that_is_not_in_the_ledger_may_come_again(gateway: Running, ledger: Ledger) -> None:
    async with dial(gateway.address) as agent:
        await agent.greet(identity("vm-of-nobody"))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("vm_unknown", False)


async def test_second_holder_of_a_token_ends_the_first_and_the_vm_is_lost(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)

    async with connected(gateway.address, identity("vm-1")) as (thief, _), dial(gateway.address) as rightful:
        await rightful.greet(identity("vm-1"))
        refused = await rightful.hear(Refused)
        code = await thief.close_code()

        async def owner_knows() -> bool:
            return [event.kind for event in await signals(owner)] == [AgentEventKind.LOST]

        await eventually(owner_knows)

    assert (refused.code, refused.final) == ("key_mismatch", True)
    assert code == REVOKED


async def test_stranger_without_a_valid_token_disturbs_nobody(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with connected(gateway.address, identity("vm-1")) as (rightful, _), dial(gateway.address) as stranger:
        await stranger.greet(identity("vm-1", issued_at=time.time() - 3600))
        refused = await stranger.hear(Refused)
        await (await rightful.socket.ping())

    assert (refused.code, refused.final) == ("key_mismatch", True)
    assert await ledger.events("vm-1") == [(0, "online")]


async def test_revoked_vm_is_shown_out_within_two_seconds(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await ledger.set_vm_state("vm-1", "destroying")
        began = time.monotonic()
        code = await agent.close_code()

    assert code == REVOKED
    assert time.monotonic() - began < 2


async def test_newer_socket_of_a_vm_replaces_the_older(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")

    async with connected(gateway.address, agent) as (older, _), connected(gateway.address, agent):
        assert await older.close_code() == REPLACED


async def test_message_before_hello_is_refused(gateway: Running) -> None:
    async with dial(gateway.address) as agent:
        await agent.say(Heartbeat(IDLE))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("unexpected_message", False)


async def test_unknown_message_is_refused_by_name(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.socket.send('{"type":"DANCE"}')
        refused = await agent.hear_until(Refused)

    assert refused.code == "unknown_type"
    assert "'DANCE'" in refused.message


async def test_other_paths_and_browsers_are_no_agents(gateway: Running) -> None:
    host, port = gateway.address
    from websockets.asyncio.client import connect

    with pytest.raises(InvalidStatus) as wrong_path:
        await connect(f"ws://{host}:{port}/", proxy=None)
    with pytest.raises(InvalidStatus) as browser:
        await connect(f"ws://{host}:{port}/v1/agent/connect", proxy=None, origin="http://evil.example")  # type: ignore[arg-type]

    assert wrong_path.value.response.status_code == 404
    assert browser.value.response.status_code == 403


async def test_database_away_turns_agents_back(open_gateway: OpenGateway, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with (
        open_gateway(database_url="postgresql://stagely@127.0.0.1:1/none") as running,
        dial(running.address) as agent,
    ):
        await agent.greet(identity("vm-1"))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("unavailable", False)
