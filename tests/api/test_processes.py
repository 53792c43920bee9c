"""The two programs as `stagely dev` runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from temporalio.client import Client

from agent.protocol import Outcome, Result
from stagely.settings import Settings
from tests.api.ledger import API_TOKEN, Ledger, build_order
from tests.api.wire import DEADLINE_S, connected
from tests.api.world import eventually, identity, signals, start_owner
from tests.services import free_port


@contextmanager
def program(module: str, settings: Settings, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "STAGELY_DATABASE_URL": settings.database_url,
        "STAGELY_REDIS_URL": settings.redis_url,
        "TEMPORAL_ADDRESS": settings.temporal_address,
        "STAGELY_GITHUB_WEBHOOK_SECRET_FILE": str(settings.github_webhook_secret_file),
        "STAGELY_SIGNING_KEY_FILE": str(settings.signing_key_file),
        "STAGELY_ENCRYPTION_KEY_FILE": str(settings.encryption_key_file),
        **changes,
    }
    with subprocess.Popen([sys.executable, "-m", module], env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


async def answers(url: str) -> None:
    async with asyncio.timeout(DEADLINE_S * 2), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_api_listens_on_every_address_and_ends_at_sigterm(settings: Settings, ledger: Ledger) -> None:
    ports = free_port(), free_port()
    listen = ",".join(f"127.0.0.1:{port}" for port in ports)

    with program("api", settings, STAGELY_API_LISTEN=listen) as process:
        await answers(f"http://127.0.0.1:{ports[0]}/healthz")
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{ports[1]}/v1/api/environments"
            listed = await client.get(url, headers={"Authorization": f"Bearer {API_TOKEN}"})
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, DEADLINE_S)

    assert [environment["id"] for environment in listed.json()] == ["env-1"]
    assert code == 0


async def test_gateway_sends_agents_back_and_ends_at_sigterm(settings: Settings, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    port = free_port()

    with program("api.gateway", settings, STAGELY_GATEWAY_LISTEN=f"127.0.0.1:{port}") as process:
        await answers(f"http://127.0.0.1:{port}/healthz")
        async with connected(("127.0.0.1", port), identity("vm-1")) as (agent, _):
            process.send_signal(signal.SIGTERM)
            close_code = await agent.close_code()
        code = await asyncio.to_thread(process.wait, DEADLINE_S)

    assert (close_code, code) == (1012, 0)


@pytest.mark.parametrize("module", ["api", "api.gateway"])
async def test_port_in_use_ends_the_program_with_a_sentence(settings: Settings, ledger: Ledger, module: str) -> None:
    port = free_port()
    listen = f"127.0.0.1:{port}"

    with program("api", settings, STAGELY_API_LISTEN=listen):
        await answers(f"http://{listen}/healthz")
        with program(module, settings, STAGELY_API_LISTEN=listen, STAGELY_GATEWAY_LISTEN=listen) as second:
            _, errors = await asyncio.to_thread(second.communicate, timeout=DEADLINE_S * 2)

    assert second.returncode == 2
    assert f"{listen} is in use" in errors.decode()


async def test_result_survives_a_gateway_killed_while_temporal_was_away(
    settings: Settings, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm, port = identity("vm-1"), free_port()
    listen = f"127.0.0.1:{port}"
    result = Result(1, "run-1/b-1/1", Outcome.SUCCEEDED, digest="sha256:" + "b" * 64)

    with program("api.gateway", settings, STAGELY_GATEWAY_LISTEN=listen, TEMPORAL_ADDRESS="127.0.0.1:1") as first:
        await answers(f"http://{listen}/healthz")
        async with connected(("127.0.0.1", port), agent_of_vm) as (agent, _):
            await agent.say(result)
            await eventually(lambda: is_stored(ledger))
            first.kill()
            await agent.close_code()
    with program("api.gateway", settings, STAGELY_GATEWAY_LISTEN=listen):
        await answers(f"http://{listen}/healthz")
        await eventually(lambda: is_answered(ledger))

    assert [event.kind for event in await signals(owner)] == ["result"]


async def is_stored(ledger: Ledger) -> bool:
    return (1, "result") in await ledger.events("vm-1")


async def is_answered(ledger: Ledger) -> bool:
    return await ledger.answered_at("run-1/b-1/1") is not None
