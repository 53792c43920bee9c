"""CERTIFY at a whole agent: answered once, served with at once, and served with after a restart without the core."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from cryptography import x509

from agent.main import Agent
from agent.protocol import Certify, Outcome
from edge.routes import vm_name
from tests.agent.test_connection import Core, Machine, listening, running, welcoming
from tests.agent.test_ingress import until_ports
from tests.certificates import Authority, new_authority

ENVIRONMENT = "env-1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that shows a preview; no container of it runs."""
    state = tmp_path / "state"
    state.mkdir()
    exposed = {"service": "web", "port": 80, "url": "http://h.localhost"}
    (state / "preview.json").write_text(json.dumps({"project": "app", "command_id": "d1", "expose": [exposed]}))
    return Machine(tmp_path)


def certify(core: Core, authority: Authority, command_id: str = "cmd-1") -> Certify:
    return Certify(command_id, authority.certify(core.hellos[0].public_key, ENVIRONMENT))


async def shown_by(agent: Agent, authority: Authority) -> int:
    """The serial number of the certificate that the ingress shows."""
    await until_ports(agent.ingress, 1)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", agent.ingress.ports[0], ssl=authority.client(), server_hostname=vm_name(ENVIRONMENT)
    )
    serial = int(str(writer.get_extra_info("peercert")["serialNumber"]), 16)
    writer.transport.abort()
    assert reader is not None
    return serial


async def test_a_certificate_is_answered_and_served_with(machine: Machine, authority: Authority) -> None:
    core = welcoming()
    async with listening(core) as server:
        agent = machine.agent(server)
        async with running(agent):
            await core.until(lambda: core.heartbeats > 0)
            await core.send(certify(core, authority))
            await core.until(lambda: bool(core.results()))
            first = await shown_by(agent, authority)
            await core.send(certify(core, authority, "cmd-2"))
            await core.until(lambda: len(core.results()) == 2)
            second = await shown_by(agent, authority)

    assert [(r.command_id, r.outcome) for r in core.results()] == [
        ("cmd-1", Outcome.SUCCEEDED), ("cmd-2", Outcome.SUCCEEDED)
    ]  # fmt: skip
    assert first != second


async def test_a_certificate_that_comes_again_is_answered_again_and_not_installed_again(
    machine: Machine, authority: Authority
) -> None:
    """The core did not hear the answer; meanwhile the agent has a newer one."""
    core = welcoming()
    async with listening(core) as server:
        agent = machine.agent(server)
        async with running(agent):
            await core.until(lambda: core.heartbeats > 0)
            old = certify(core, authority)
            await core.send(old)
            await core.send(certify(core, authority, "cmd-2"))
            await core.until(lambda: len(core.results()) == 2)
            await core.send(old)
            await core.until(lambda: len(core.results()) == 3)
            shown = await shown_by(agent, authority)

    assert [r.command_id for r in core.results()] == ["cmd-1", "cmd-2", "cmd-1"]
    assert shown != _serial(old)


async def test_a_restarted_agent_serves_by_tls_while_the_core_is_away(machine: Machine, authority: Authority) -> None:
    core = welcoming()
    async with listening(core) as server:
        async with running(machine.agent(server)):
            await core.until(lambda: core.heartbeats > 0)
            order = certify(core, authority)
            await core.send(order)
            await core.until(lambda: bool(core.results()))
        restarted = machine.agent(server)

    async with running(restarted):
        assert await shown_by(restarted, authority) == _serial(order)


async def test_a_certificate_that_is_none_fails_by_name_and_the_ports_go_on(
    machine: Machine, authority: Authority
) -> None:
    core = welcoming()
    async with listening(core) as server:
        agent = machine.agent(server)
        async with running(agent):
            await core.until(lambda: core.heartbeats > 0)
            good = certify(core, authority)
            await core.send(good)
            await core.send(Certify("cmd-2", "no certificate"))
            await core.until(lambda: len(core.results()) == 2)
            shown = await shown_by(agent, authority)

    failed = core.results()[1]
    assert failed.outcome is Outcome.FAILED
    assert failed.failure is not None
    assert failed.failure.message.startswith("the certificate cannot be served with on this VM")
    assert shown == _serial(good)


def _serial(order: Certify) -> int:
    return x509.load_pem_x509_certificate(order.certificate.encode()).serial_number
