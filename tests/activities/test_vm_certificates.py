"""Certificates of preview VMs: who gets one, when the next one comes, and what a route waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update
from structlog.testing import capture_logs

from activities.routes import Routes
from activities.vm_certificates import CertificateIssuer
from edge.routes import Route, decode, key_of, vm_name
from stagely.db.bootstrap import LOCAL_TEAM
from stagely.db.models import utc_now
from stagely.db.tables import agent_commands, agent_events, vms
from stagely.errors import Conflict, Unavailable
from stagely.vm_ca import VmCa, VmCaInvalid, new_ca, write_ca
from tests.activities.yard import Yard
from workflows.orders import RouteOrder

HOUR = timedelta(hours=1)
KEY = Ed25519PrivateKey.generate().public_key()
PUBLIC_KEY = KEY.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


@pytest.fixture
def issuer(yard: Yard, tmp_path: Path) -> CertificateIssuer:
    write_ca(tmp_path / "ca.pem")
    return CertificateIssuer(yard.engine, yard.redis, VmCa(tmp_path / "ca.pem"))


async def vm_of(yard: Yard, environment: str, **more: Any) -> str:  # Any: column values.
    """A VM whose agent was let in."""
    return await yard.row(environment, **{"public_key": PUBLIC_KEY, **more})


async def commands(yard: Yard, vm_id: str) -> Sequence[Any]:  # Any: rows.
    async with yard.engine.connect() as db:
        query = select(agent_commands).where(agent_commands.c.vm_id == vm_id).order_by(agent_commands.c.created_at)
        return (await db.execute(query)).all()


async def answer(yard: Yard, vm_id: str, outcome: str = "succeeded", boot_id: str = "boot") -> None:
    """The agent's answer to its newest command."""
    command = (await commands(yard, vm_id))[-1]
    await yard.insert(
        agent_events,
        vm_id=vm_id, boot_id=boot_id, seq=len(await commands(yard, vm_id)), team_id=LOCAL_TEAM, kind="result",
        command_id=command.id, body={"outcome": outcome}, received_at=utc_now(),
    )  # fmt: skip


async def let_pass(yard: Yard, vm_id: str, time: timedelta) -> None:
    """So much later for this VM."""
    async with yard.engine.begin() as db:
        await db.execute(update(vms).where(vms.c.id == vm_id).values(certify_at=vms.c.certify_at - time))
        await db.execute(
            update(agent_commands)
            .where(agent_commands.c.vm_id == vm_id)
            .values(created_at=agent_commands.c.created_at - time)
        )


async def test_an_agent_that_was_let_in_is_given_its_environments_certificate(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment)
    async with yard.redis.pubsub() as channel:
        await channel.subscribe("agent-commands")

        given = await issuer.look_after_due()

        nudge = [await channel.get_message(timeout=5) for _ in ("subscribed", "told")][-1]
    (command,) = await commands(yard, vm_id)
    made = x509.load_pem_x509_certificate(command.body["certificate"].encode())
    assert given == [vm_id]
    assert (command.kind, command.environment_id, command.answered_at) == ("certify", environment, None)
    assert made.public_key() == KEY
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [vm_name(environment)]
    assert nudge is not None
    assert nudge["data"] == vm_id.encode()


@pytest.mark.parametrize("odd", [{"public_key": ""}, {"role": "builder"}, {"state": "destroying"}, {"state": "gone"}])
async def test_who_shows_no_preview_is_given_none(yard: Yard, issuer: CertificateIssuer, odd: dict[str, str]) -> None:
    vm_id = await vm_of(yard, await yard.environment(), **odd)

    assert await issuer.look_after_due() == []
    assert await commands(yard, vm_id) == []


async def test_a_certificate_that_was_taken_is_renewed_after_a_third_of_its_life(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    given = [await issuer.look_after_due()]
    await answer(yard, vm_id)

    for later in (timedelta(minutes=2), 7 * HOUR, 2 * HOUR, timedelta(minutes=2)):
        await let_pass(yard, vm_id, later)
        given.append(await issuer.look_after_due())

    assert given == [[vm_id], [], [], [vm_id], []]


async def test_an_agent_that_is_away_keeps_its_one_open_command_until_the_next_is_due(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    given = [await issuer.look_after_due()]

    for later in (timedelta(minutes=2), HOUR, 7 * HOUR):
        await let_pass(yard, vm_id, later)
        given.append(await issuer.look_after_due())

    assert given == [[vm_id], [], [], [vm_id]]


async def test_an_agent_that_could_not_take_it_is_given_another_within_a_minute(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    await issuer.look_after_due()
    await answer(yard, vm_id, "failed")

    await let_pass(yard, vm_id, timedelta(seconds=61))

    assert await issuer.look_after_due() == [vm_id]


async def test_an_agent_that_takes_none_is_asked_less_and_less_often(yard: Yard, issuer: CertificateIssuer) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    waited = []

    for _ in range(4):
        minutes = 0
        while not await issuer.look_after_due():
            minutes += 1
            await let_pass(yard, vm_id, timedelta(seconds=60.5))
        await answer(yard, vm_id, "failed")
        waited.append(minutes)

    assert waited == [0, 1, 2, 4]


async def test_two_issuers_give_each_vm_one(yard: Yard, issuer: CertificateIssuer) -> None:
    environment = await yard.environment()
    vm_ids = [await vm_of(yard, environment) for _ in range(20)]

    given = await asyncio.gather(*(issuer.look_after_due() for _ in range(4)))

    assert sorted(vm_id for some in given for vm_id in some) == sorted(vm_ids)
    assert [len(await commands(yard, vm_id)) for vm_id in vm_ids] == [1] * 20


async def test_a_ca_that_is_not_valid_any_more_gives_nobody_any_and_leaves_all_due(
    yard: Yard, issuer: CertificateIssuer, tmp_path: Path
) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    (tmp_path / "ca.pem").chmod(0o644)
    (tmp_path / "ca.pem").write_text("damaged")
    with pytest.raises(VmCaInvalid):
        await issuer.look_after_due()

    (tmp_path / "ca.pem").unlink()
    write_ca(tmp_path / "ca.pem")

    assert await issuer.look_after_due() == [vm_id]


async def test_a_ca_in_its_last_month_is_warned_of(yard: Yard, tmp_path: Path) -> None:
    path = tmp_path / "old.pem"
    path.touch(0o600)
    path.write_text(new_ca(utc_now() - timedelta(days=340))[0])
    issuer = CertificateIssuer(yard.engine, yard.redis, VmCa(path))
    await vm_of(yard, await yard.environment())

    with capture_logs() as logs:
        await issuer.look_after_due()

    assert [log["event"] for log in logs] == ["certificate issued", "vm ca ends soon"]


async def test_the_loop_outlives_a_ca_that_is_not_valid(yard: Yard, issuer: CertificateIssuer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("damaged")
    await vm_of(yard, await yard.environment())

    assert await issuer._pass() == 30.0


# Routes.


async def announced(yard: Yard, environment: str) -> Route:
    raw = await yard.redis.get(key_of(environment))
    assert raw is not None
    return decode(raw)


def routes(yard: Yard, *, by_tls: bool) -> Routes:
    return Routes(yard.engine, yard.redis, "http://x/{environment}", by_tls=by_tls)


async def test_a_route_waits_until_the_vm_has_taken_its_certificate_and_is_by_tls_then(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9", provider="local")
    ready = RouteOrder(environment, "ready", vm_id)
    await issuer.look_after_due()

    with pytest.raises(Unavailable, match="has not taken its certificate yet"):
        await routes(yard, by_tls=True).apply(ready)
    await answer(yard, vm_id)
    await routes(yard, by_tls=True).apply(ready)

    route = await announced(yard, environment)
    assert (route.ip, route.tls, route.environment) == ("10.0.0.9", True, environment)


async def test_a_certificate_that_the_agent_could_not_take_ends_the_push_and_says_what_to_do(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9")
    await issuer.look_after_due()
    await answer(yard, vm_id, "failed")

    with pytest.raises(Conflict, match="could not take its certificate"):
        await routes(yard, by_tls=True).apply(RouteOrder(environment, "ready", vm_id))


async def test_a_renewal_that_failed_takes_no_route_away(yard: Yard, issuer: CertificateIssuer) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9")
    await issuer.look_after_due()
    await answer(yard, vm_id)
    await let_pass(yard, vm_id, timedelta(minutes=2))
    await issuer.look_after_due()
    await let_pass(yard, vm_id, 9 * HOUR)
    assert await issuer.look_after_due() == [vm_id]
    await answer(yard, vm_id, "failed")

    await routes(yard, by_tls=True).apply(RouteOrder(environment, "ready", vm_id))

    assert (await announced(yard, environment)).tls


async def test_a_page_needs_no_certificate(yard: Yard) -> None:
    environment = await yard.environment()

    await routes(yard, by_tls=True).apply(RouteOrder(environment, "building", phase="building its images"))

    assert not (await announced(yard, environment)).tls


async def test_without_a_ca_a_local_vm_is_reached_in_clear(yard: Yard) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9", provider="local")

    await routes(yard, by_tls=False).apply(RouteOrder(environment, "ready", vm_id))

    assert not (await announced(yard, environment)).tls


async def test_without_a_ca_a_vm_in_a_cloud_gets_no_route(yard: Yard) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9", provider="hetzner")

    with pytest.raises(Conflict, match="is not reached in clear: set STAGELY_VM_CA_FILE"):
        await routes(yard, by_tls=False).apply(RouteOrder(environment, "ready", vm_id))


async def test_a_vm_that_is_being_destroyed_gets_no_route_whatever_it_has(
    yard: Yard, issuer: CertificateIssuer
) -> None:
    environment = await yard.environment()
    vm_id = await vm_of(yard, environment, address="10.0.0.9")
    await issuer.look_after_due()
    await answer(yard, vm_id)
    await yard.change(vms, vm_id, state="destroying")

    with pytest.raises(Conflict):
        await routes(yard, by_tls=True).apply(RouteOrder(environment, "ready", vm_id))


async def test_a_failure_that_an_agent_says_twice_counts_once(yard: Yard, issuer: CertificateIssuer) -> None:
    vm_id = await vm_of(yard, await yard.environment())
    await issuer.look_after_due()
    await answer(yard, vm_id, "failed", boot_id="boot")
    await answer(yard, vm_id, "failed", boot_id="boot-2")
    await let_pass(yard, vm_id, timedelta(seconds=61))
    await issuer.look_after_due()
    await answer(yard, vm_id, "failed")

    await let_pass(yard, vm_id, timedelta(seconds=121))

    assert await issuer.look_after_due() == [vm_id]
