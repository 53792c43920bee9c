"""The key and the session of an agent: what of it opens a VM's row, what does not, and what counts as theft."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from sqlalchemy import text
from temporalio.client import Client

from agent.protocol import NONCE_BYTES, WELCOME_TIMEOUT_S, Refused, Welcome
from api.gateway.websocket import REVOKED
from stagely.db.queries import enrolment
from stagely.db.queries.enrolment import Enrolment
from tests.api.ledger import Ledger
from tests.api.wire import Identity, WireAgent, connected, dial
from tests.api.world import Clock, OpenGateway, Running, eventually, identity, signals, start_owner
from workflows.messages import AgentEventKind

ADDRESS = tuple[str, int]
STRANGERS = 50


async def first_word(socket: WireAgent) -> Welcome | Refused:
    return await socket.hear(Welcome, Refused)


async def greeted(socket: WireAgent, agent: Identity) -> Welcome | Refused:
    await socket.greet(agent)
    return await first_word(socket)


async def answer(address: ADDRESS, agent: Identity) -> Welcome | Refused:
    """What the gateway says to this agent's HELLO; the agent does not take it to heart."""
    async with dial(address) as socket:
        return await greeted(socket, agent)


async def refusal(address: ADDRESS, agent: Identity) -> tuple[str, bool]:
    refused = await answer(address, agent)
    assert isinstance(refused, Refused)
    return refused.code, refused.final


async def is_lost(ledger: Ledger, vm_id: str) -> bool:
    return (-1, "lost") in await ledger.events(vm_id)


@pytest.fixture
async def second_gateway(open_gateway: OpenGateway, ledger: Ledger) -> AsyncIterator[Running]:
    """Beside `gateway`, on the same ledger."""
    async with open_gateway() as running:
        yield running


async def test_every_connection_has_a_nonce_of_its_own(gateway: Running) -> None:
    async with dial(gateway.address) as one, dial(gateway.address) as other:
        assert one.nonce != other.nonce
        assert len(one.nonce) == 2 * NONCE_BYTES


async def test_a_hello_that_was_recorded_is_worth_nothing_on_another_connection(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with dial(gateway.address) as socket:
        recorded = agent.hello(socket.nonce)
        await socket.say(recorded)
        await socket.hear(Welcome)

    async with dial(gateway.address) as thief:
        await thief.say(recorded)
        refused = await thief.hear(Refused)

    assert (refused.code, refused.final) == ("bad_signature", False)
    assert await ledger.events("vm-1") == [(0, "online")]


@pytest.mark.parametrize(
    "tampered",
    [
        {"agent_id": "vm-2"},
        {"boot_id": "boot-2"},
        {"session": "5a" * 32},
        {"next_session": "5a" * 32},
        {"public_key": Identity("", "").public_key},
        {"signature": "5a" * 64},
    ],
    ids=lambda tampered: next(iter(tampered)),
)
async def test_a_hello_that_was_changed_on_its_way_is_refused(
    gateway: Running, ledger: Ledger, tampered: dict[str, str]
) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_vm("vm-2")

    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), **tampered))  # type: ignore[arg-type]
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("bad_signature", False)
    assert (await ledger.vm("vm-1")).public_key == ""


@pytest.mark.parametrize(
    "spoiled",
    [
        {"agent_id": "vm-1\nvm-2"},
        {"boot_id": ""},
        {"public_key": "5A" * 32},
        {"public_key": ""},
        {"signature": "5a" * 63},
        {"session": "5a"},
        {"next_session": ""},
        {"session": "5a" * 32, "next_session": "5a" * 32},
    ],
    ids=str,
)
async def test_a_hello_of_another_form_is_refused_before_anything_is_verified(
    gateway: Running, spoiled: dict[str, str]
) -> None:
    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), **spoiled))  # type: ignore[arg-type]
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("bad_hello", False)


async def test_a_public_key_that_is_no_point_of_the_curve_verifies_nothing(gateway: Running) -> None:
    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), public_key="02" + "00" * 31))
        refused = await agent.hear(Refused)

    assert refused.code == "bad_signature"


async def test_the_session_moves_on_with_every_welcome(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")

    sessions = []
    for _ in range(3):
        async with connected(gateway.address, agent):
            sessions.append((await ledger.vm("vm-1")).session_sha256)

    assert len(set(sessions)) == 3
    assert (await ledger.vm("vm-1")).previous_session_sha256 == sessions[1]


async def test_a_hello_whose_welcome_was_lost_is_repeated_any_number_of_times(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    first = [await answer(gateway.address, agent) for _ in range(3)]
    agent.welcomed()

    second = [await answer(gateway.address, agent) for _ in range(3)]

    assert first + second == [Welcome(heartbeat_s=5.0, acked_seq=0)] * 6
    assert await ledger.events("vm-1") == [(0, "online")]


async def test_the_same_hello_at_two_gateways_at_once_is_one_agents(
    gateway: Running, second_gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with connected(gateway.address, agent):
        pass

    async with dial(gateway.address) as here, dial(second_gateway.address) as there:
        async with ledger.vm_held("vm-1"):
            await here.greet(agent)
            await there.greet(agent)
            await eventually(ledger.two_wait_for_a_row)
        assert await here.hear(Welcome)
        assert await there.hear(Welcome)

    assert await ledger.events("vm-1") == [(0, "online")]


async def test_a_copied_key_and_session_are_found_out_and_both_are_shown_out(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    rightful = identity("vm-1")
    async with connected(gateway.address, rightful):
        pass
    copy = rightful.copied()
    async with connected(gateway.address, rightful):
        pass

    async with connected(gateway.address, rightful) as (living, _):
        refused = await refusal(gateway.address, copy)
        told = await living.hear_until(Refused)
        code = await living.close_code()

        async def owner_knows() -> bool:
            return [event.kind for event in await signals(owner)] == [AgentEventKind.LOST]

        await eventually(owner_knows)

    assert refused == ("session_mismatch", True)
    assert (told.code, told.final, code) == ("session_disputed", True, REVOKED)


async def test_a_copy_that_comes_as_a_repetition_is_found_out_by_the_next_hello(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    rightful = identity("vm-1")
    copy = rightful.copied()
    async with connected(gateway.address, rightful), connected(gateway.address, copy):
        pass

    async with connected(gateway.address, rightful):
        refused = await refusal(gateway.address, copy)

    assert refused == ("session_mismatch", True)
    assert await is_lost(ledger, "vm-1")


async def test_nobody_speaks_for_a_vm_again_whose_key_was_copied(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    rightful = identity("vm-1")
    copy = rightful.copied()
    for _ in range(2):
        async with connected(gateway.address, rightful):
            pass
    await refusal(gateway.address, copy)

    assert await refusal(gateway.address, rightful) == ("session_mismatch", True)


async def test_nobody_speaks_for_a_vm_again_whose_token_was_stolen(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    first, second = identity("vm-1"), identity("vm-1")
    async with connected(gateway.address, first):
        pass

    assert await refusal(gateway.address, second) == ("key_mismatch", True)
    assert await refusal(gateway.address, first) == ("session_mismatch", True)


async def test_a_right_key_with_the_wrong_session_is_theft_also_with_a_valid_token(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with connected(gateway.address, agent):
        pass
    agent.session = secrets.token_hex(32)

    assert await refusal(gateway.address, agent) == ("session_mismatch", True)
    assert await is_lost(ledger, "vm-1")


async def test_who_announces_the_newest_session_and_shows_another_repeats_nothing(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with connected(gateway.address, agent):
        pass
    agent.session, agent.next_session = secrets.token_hex(32), agent.session

    assert await refusal(gateway.address, agent) == ("session_mismatch", True)


async def test_a_hello_that_its_agent_has_given_up_is_no_theft(open_gateway: OpenGateway, ledger: Ledger) -> None:
    """It waited for the database for so long that the agent came again, and again, by another gateway."""
    await ledger.add_vm("vm-1")
    clock, agent = Clock(), identity("vm-1")
    overtaken = agent.copied()

    async with open_gateway(clock=clock) as gateway:
        for _ in range(2):
            async with connected(gateway.address, agent):
                pass
        async with dial(gateway.address) as late:
            async with ledger.vms_held():
                await late.greet(overtaken)
                await eventually(ledger.are_vms_waited_for)
                clock.advance(WELCOME_TIMEOUT_S)
            refused = await late.hear(Refused)
        async with connected(gateway.address, agent):
            pass

    assert (refused.code, refused.final) == ("unavailable", False)
    assert await ledger.events("vm-1") == [(0, "online")]


async def test_of_fifty_keys_with_one_token_one_wins_and_the_vm_counts_as_lost(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    strangers = [identity("vm-1") for _ in range(STRANGERS)]

    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(dial(gateway.address)) for _ in strangers]
        answers = await asyncio.gather(*map(greeted, sockets, strangers))
        winners = [at for at, said in enumerate(answers) if isinstance(said, Welcome)]
        code = await sockets[winners[0]].close_code()

    assert len(winners) == 1
    assert code == REVOKED
    assert (await ledger.vm("vm-1")).public_key == strangers[winners[0]].public_key
    assert {said.code for said in answers if isinstance(said, Refused)} == {"key_mismatch"}
    assert await is_lost(ledger, "vm-1")


async def test_two_keys_with_one_token_at_two_gateways_at_once_are_a_dispute_as_well(
    gateway: Running, second_gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as here, dial(second_gateway.address) as there:
        async with ledger.vm_held("vm-1"):
            await here.greet(identity("vm-1"))
            await there.greet(identity("vm-1"))
            await eventually(ledger.two_wait_for_a_row)
        answers = [await first_word(here), await first_word(there)]

    refused = [said for said in answers if isinstance(said, Refused)]
    assert [(said.code, said.final) for said in refused] == [("key_mismatch", True)]
    assert await is_lost(ledger, "vm-1")


async def test_a_row_whose_session_a_person_has_cleared_takes_the_right_key_and_no_other(
    gateway: Running, ledger: Ledger
) -> None:
    """After a database was restored from a backup, no agent's session is the newest one."""
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    for _ in range(2):
        async with connected(gateway.address, agent):
            pass
    async with ledger.engine.begin() as db:
        await db.execute(text("UPDATE vms SET session_sha256 = '', previous_session_sha256 = ''"))

    stranger = await refusal(gateway.address, Identity("vm-1", ""))
    async with connected(gateway.address, agent), connected(gateway.address, agent):
        pass

    assert stranger == ("key_mismatch", True)
    assert await ledger.events("vm-1") == [(0, "online")]


async def test_what_is_kept_of_a_session_is_its_digest(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    agent = identity("vm-1")
    async with connected(gateway.address, agent):
        row = str(await ledger.vm("vm-1"))

    assert agent.session not in row
    assert agent.public_key in row


async def test_one_statement_judges_each_of_a_batch_by_itself(ledger: Ledger) -> None:
    for vm_id in ("vm-1", "vm-2", "vm-3"):
        await ledger.add_vm(vm_id)
    good = Enrolment("vm-1", "k1", "s0", "s1", "boot-1", has_token=True)
    bare = Enrolment("vm-2", "k2", "s0", "s1", "boot-1", has_token=False)
    nobody = Enrolment("vm-9", "k9", "s0", "s1", "boot-1", has_token=True)

    inside, away = await enrolment.enrol(ledger.engine, [good, bare, nobody])

    assert list(inside) == ["vm-1"]
    assert {vm_id: (turned.vm_state, turned.public_key) for vm_id, turned in away.items()} == {
        "vm-2": ("creating", ""),
        "vm-9": ("", ""),
    }
