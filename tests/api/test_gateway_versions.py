"""Agents of other releases: welcomed next door, sent away beyond it, and powered off only when they are behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.protocol import VERSION, Refused, Welcome
from tests.api.ledger import Ledger
from tests.api.wire import dial
from tests.api.world import Running, identity


async def test_an_agent_one_version_ahead_is_welcomed_in_the_gateways_version(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), version=VERSION + 1))
        welcome = await agent.hear(Welcome)

    assert welcome.version == VERSION


@pytest.mark.parametrize(("version", "is_final"), [(VERSION + 2, False), (VERSION - 2, True)])
async def test_an_agent_too_far_ahead_waits_for_a_newer_gateway_and_one_too_old_gives_up(
    gateway: Running, ledger: Ledger, version: int, is_final: bool
) -> None:
    """A gateway that was rolled back must not power off everybody's previews: trying again later does help."""
    await ledger.add_vm("vm-1")

    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), version=version))
        refused = await agent.hear(Refused)

    assert (refused.code, refused.final) == ("unsupported_version", is_final)
