"""GitHub's webhooks: verified, kept, passed on once, whatever is away."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx
import pytest
from temporalio.client import Client

from stagely.settings import Settings
from tests.api.ledger import Ledger
from tests.api.world import WEBHOOK_SECRET, eventually, pull_request_events, run_api
from tests.services import free_port, temporal_server

URL = "/v1/webhooks/github"


def body_of(action: str = "opened", number: int = 7, repo: str = "local/guestbook") -> bytes:
    return json.dumps(
        {"action": action, "number": number, "repository": {"full_name": repo}, "extra": {"a": 1}}
    ).encode()


def headers_of(body: bytes, delivery: str = "d-1", event: str = "pull_request") -> dict[str, str]:
    signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Event": event,
        "Content-Type": "application/json",
    }


async def test_signed_webhook_starts_the_environments_workflow(
    web: httpx.AsyncClient, ledger: Ledger, temporal_client: Client
) -> None:
    body = body_of(number=101)

    answer = await web.post(URL, content=body, headers=headers_of(body, "d-101"))

    handle = temporal_client.get_workflow_handle("env/prj-1/pr/101")
    description = await handle.describe()
    [event] = await pull_request_events(handle)
    assert (answer.status_code, answer.json()) == (202, {"delivery": "d-101", "status": "dispatched", "reason": ""})
    assert description.workflow_type == "EnvironmentWorkflow"
    assert description.task_queue == "stagely-workflows"
    assert (event.delivery_id, event.action) == ("d-101", "opened")
    assert event.received_at > 1e9


async def test_second_event_signals_the_workflow_that_runs(web: httpx.AsyncClient, temporal_client: Client) -> None:
    opened, pushed = body_of(number=102), body_of("synchronize", 102)

    await web.post(URL, content=opened, headers=headers_of(opened, "d-1021"))
    await web.post(URL, content=pushed, headers=headers_of(pushed, "d-1022"))

    events = await pull_request_events(temporal_client.get_workflow_handle("env/prj-1/pr/102"))
    assert [event.action for event in events] == ["opened", "synchronize"]


async def test_redelivered_webhook_is_passed_on_once(web: httpx.AsyncClient, temporal_client: Client) -> None:
    body = body_of(number=103)

    await web.post(URL, content=body, headers=headers_of(body, "d-103"))
    again = await web.post(URL, content=body, headers=headers_of(body, "d-103"))

    events = await pull_request_events(temporal_client.get_workflow_handle("env/prj-1/pr/103"))
    assert (again.status_code, again.json()["status"]) == (202, "duplicate")
    assert len(events) == 1


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha256=" + "0" * 64, "sha1=" + "0" * 40, "sha256=" + "É" * 64], ids=str
)
async def test_webhook_with_a_bad_signature_is_refused(web: httpx.AsyncClient, signature: str) -> None:
    body = body_of()
    headers = {**headers_of(body), "X-Hub-Signature-256": signature}
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}

    answer = await web.post(URL, content=body, headers=raw)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_body_that_was_changed_after_signing_is_refused(web: httpx.AsyncClient) -> None:
    body = body_of()

    answer = await web.post(URL, content=body + b" ", headers=headers_of(body))

    assert answer.status_code == 401


async def test_ping_is_answered(web: httpx.AsyncClient) -> None:
    answer = await web.post(URL, content=b"{}", headers=headers_of(b"{}", event="ping"))

    assert (answer.status_code, answer.json()["status"]) == (200, "pong")


@pytest.mark.parametrize(
    ("body", "event", "reason"),
    [
        (body_of(repo="local/unknown"), "pull_request", "no project has the repository local/unknown"),
        (body_of("assigned"), "pull_request", "'assigned' changes nothing about what is deployed"),
        (b"{}", "issues", "events of kind 'issues' change nothing here"),
    ],
    ids=["repository", "action", "event"],
)
async def test_webhook_that_changes_nothing_is_ignored_with_a_reason(
    web: httpx.AsyncClient, body: bytes, event: str, reason: str
) -> None:
    answer = await web.post(URL, content=body, headers=headers_of(body, event=event))

    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (202, "ignored", reason)


async def test_signed_body_that_is_no_pull_request_is_a_bad_request(web: httpx.AsyncClient) -> None:
    answer = await web.post(URL, content=b"payload=%7B", headers=headers_of(b"payload=%7B"))

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_webhook_is_kept_while_temporal_is_away_and_passed_on_later(
    settings: Settings, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    body = body_of(number=104)
    folder = tmp_path_factory.mktemp("late-temporal")

    async with run_api(settings.model_copy(update={"temporal_address": f"127.0.0.1:{port}"})) as web:
        answer = await web.post(URL, content=body, headers=headers_of(body, "d-104"))
        kept = await ledger.dispatched_at("d-104")
        with temporal_server(folder, port):

            async def is_dispatched() -> bool:
                return await ledger.dispatched_at("d-104") is not None

            await eventually(is_dispatched)
            client = await Client.connect(f"127.0.0.1:{port}")
            events = await pull_request_events(client.get_workflow_handle("env/prj-1/pr/104"))

    assert (answer.status_code, answer.json()["status"]) == (202, "stored")
    assert kept is None
    assert {event.delivery_id for event in events} == {"d-104"}


async def test_webhook_that_temporal_refuses_holds_back_its_own_pull_request_only(
    settings: Settings, ledger: Ledger
) -> None:
    too_long = "p" * 1100  # Temporal takes workflow ids of up to 1000 characters.
    await ledger.add_delivery("d-bad", too_long, 1, age_s=60)
    await ledger.add_delivery("d-good", "prj-1", 105, age_s=30)

    async def is_dispatched() -> bool:
        return await ledger.dispatched_at("d-good") is not None

    async with run_api(settings):
        await eventually(is_dispatched)

    assert await ledger.dispatched_at("d-bad") is None
