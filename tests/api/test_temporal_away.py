"""Temporal away, late, or there without our namespace: api and gateway as real programs go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from datetime import timedelta
from pathlib import Path

import httpx
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from agent.protocol import Outcome, Result
from stagely.settings import Settings
from tests.api.ledger import API_TOKEN, Ledger, build_order
from tests.api.test_processes import answers, program
from tests.api.test_webhooks import URL, body_of, headers_of
from tests.api.wire import DEADLINE_S, connected
from tests.api.world import eventually, identity, pull_request_events, signals, start_owner
from tests.services import free_port, temporal_server

NOBODY = "127.0.0.1:1"
STORED = {"status": "stored", "reason": ""}


async def sent(base: str, number: int, delivery: str) -> tuple[int, dict[str, str]]:
    """Status and body of the answer to a webhook of this pull request."""
    body = body_of(number=number)
    async with httpx.AsyncClient(base_url=base, timeout=DEADLINE_S) as client:
        answer = await client.post(URL, content=body, headers=headers_of(body, delivery))
    return answer.status_code, answer.json()


async def dispatched(ledger: Ledger, delivery: str) -> None:
    async def claim() -> bool:
        return await ledger.dispatched_at(delivery) is not None

    await eventually(claim)


async def deliveries(client: Client, number: int) -> set[str]:
    """What the pull request's workflow was told; the same delivery twice is allowed."""
    events = await pull_request_events(client.get_workflow_handle(f"env/prj-1/pr/{number}"))
    return {event.delivery_id for event in events}


def wait_for_line(process: subprocess.Popen[bytes], text: str) -> bool:
    """Whether the program logs it before its end. Blocks."""
    assert process.stderr is not None
    return any(text in line.decode() for line in process.stderr)


async def register(client: Client, namespace: str) -> None:
    kept = Duration()
    kept.FromTimedelta(timedelta(days=1))
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=kept)
    )


async def test_people_are_answered_while_temporal_is_away(settings: Settings, ledger: Ledger) -> None:
    base = f"http://127.0.0.1:{free_port()}"

    with program("api", settings, STAGELY_API_LISTEN=base[7:], TEMPORAL_ADDRESS=NOBODY):
        await answers(f"{base}/healthz")
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            listed = await client.get(f"{base}/v1/api/environments", headers={"Authorization": f"Bearer {API_TOKEN}"})

    assert [environment["id"] for environment in listed.json()] == ["env-1"]


async def test_webhook_outlives_the_api_that_took_it_while_temporal_was_away(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    base, port = f"http://127.0.0.1:{free_port()}", free_port()
    here = {"STAGELY_API_LISTEN": base[7:], "TEMPORAL_ADDRESS": f"127.0.0.1:{port}"}

    with program("api", settings, **here) as first:
        await answers(f"{base}/healthz")
        answer = await sent(base, 201, "d-201")
        first.kill()
    with temporal_server(tmp_path, port), program("api", settings, **here):
        await dispatched(ledger, "d-201")
        told = await deliveries(await Client.connect(f"127.0.0.1:{port}"), 201)

    assert answer == (202, {"delivery": "d-201", **STORED})
    assert told == {"d-201"}


async def test_webhook_waits_for_a_namespace_that_is_made_later(
    settings: Settings, ledger: Ledger, temporal_client: Client
) -> None:
    base, namespace = f"http://127.0.0.1:{free_port()}", f"late-{secrets.token_hex(4)}"

    with program("api", settings, STAGELY_API_LISTEN=base[7:], TEMPORAL_NAMESPACE=namespace):
        await answers(f"{base}/healthz")
        answer = await sent(base, 202, "d-202")
        await register(temporal_client, namespace)
        await dispatched(ledger, "d-202")
        told = await deliveries(await Client.connect(settings.temporal_address, namespace=namespace), 202)

    assert answer == (202, {"delivery": "d-202", **STORED})
    assert told == {"d-202"}


async def test_missing_namespace_is_no_owner_that_has_ended(
    settings: Settings, ledger: Ledger, temporal_client: Client
) -> None:
    owner, port = await start_owner(temporal_client), free_port()
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    listen = f"127.0.0.1:{port}"

    with program("api.gateway", settings, STAGELY_GATEWAY_LISTEN=listen, TEMPORAL_NAMESPACE="none") as first:
        await answers(f"http://{listen}/healthz")
        async with connected(("127.0.0.1", port), identity("vm-1")) as (agent, _):
            await agent.say(Result(1, "run-1/b-1/1", Outcome.SUCCEEDED, digest="sha256:" + "b" * 64))
            async with asyncio.timeout(DEADLINE_S):
                has_tried = await asyncio.to_thread(wait_for_line, first, "event waits for Temporal")
            answered = await ledger.answered_at("run-1/b-1/1")
    with program("api.gateway", settings, STAGELY_GATEWAY_LISTEN=listen):

        async def is_answered() -> bool:
            return await ledger.answered_at("run-1/b-1/1") is not None

        await eventually(is_answered)

    assert (has_tried, answered) == (True, None)
    assert "result" in [event.kind for event in await signals(owner)]
