"""What people ask of an environment: done, refused in its workflow's own words, or safe to ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import text
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from stagely import temporal
from stagely.settings import Settings
from tests.api.ledger import API_TOKEN, SHA, Ledger
from tests.api.wire import DEADLINE_S
from tests.api.world import eventually, pull_request_events, run_api
from workflows.messages import (
    ApproveRequest,
    Asked,
    ExtendRequest,
    PinRequest,
    RedeployRequest,
    RetryRequest,
    StopRequest,
)

AUTH = {"Authorization": f"Bearer {API_TOKEN}"}
END = 1_000_000.0


@workflow.defn(name="EnvironmentWorkflow")
class StandIn:
    """Has the real one's updates, writes down who asked what, and ends when told. `refusal`: code of every answer."""

    @workflow.init
    def __init__(self, refusal: str) -> None:
        self.refusal = refusal
        self.journal: list[str] = []
        self.is_over = False

    @workflow.run
    async def run(self, refusal: str) -> list[str]:
        await workflow.wait_condition(lambda: self.is_over and workflow.all_handlers_finished())
        return self.journal

    @workflow.signal
    def end(self) -> None:
        self.is_over = True

    @workflow.update
    def extend(self, request: ExtendRequest) -> Asked:
        self.journal.append(f"extend {request.seconds:g} by {request.by}")
        return Asked(expires_at=END + request.seconds)

    @extend.validator
    def _may_extend(self, request: ExtendRequest) -> None:
        if self.refusal == "bug":
            raise KeyError("a mistake of ours")
        if self.refusal:
            raise ApplicationError(f"not now: {self.refusal}", type=self.refusal, non_retryable=True)

    @workflow.update
    def pin(self, request: PinRequest) -> Asked:
        self.journal.append(f"pin {request.pinned}")
        return Asked(expires_at=None if request.pinned else END, is_pinned=request.pinned)

    @workflow.update
    def redeploy(self, request: RedeployRequest) -> Asked:
        self.journal.append("redeploy")
        return Asked(expires_at=END)

    @workflow.update
    def retry(self, request: RetryRequest) -> Asked:
        self.journal.append("retry")
        return Asked(expires_at=END)

    @workflow.update
    def approve(self, request: ApproveRequest) -> Asked:
        self.journal.append(f"approve {request.sha}")
        return Asked()

    @workflow.update
    async def stop(self, request: StopRequest) -> Asked:
        """The real one answers at once; this one only when it is over."""
        await workflow.wait_condition(lambda: self.is_over)
        return Asked()


@dataclass(frozen=True, slots=True)
class Standing:
    """Starts stand-ins under the ids of real environments; each test takes a pull request of its own."""

    client: Client
    ledger: Ledger

    async def begin(self, pr: int, refusal: str = "", **columns: object) -> WorkflowHandle[object, list[str]]:
        """Environment `env-{pr}` and its workflow, in a queue that no worker serves yet."""
        await self.ledger.add_environment(f"env-{pr}", pr, **{"status": "ready", **columns})
        return await self.client.start_workflow(
            "EnvironmentWorkflow", refusal, id=f"env/prj-1/pr/{pr}", task_queue=f"actions-{pr}", result_type=list[str]
        )

    @asynccontextmanager
    async def working(self, pr: int) -> AsyncIterator[None]:
        queue, runner = f"actions-{pr}", UnsandboxedWorkflowRunner()
        async with Worker(self.client, task_queue=queue, workflows=[StandIn], workflow_runner=runner):
            yield

    async def journal(self, handle: WorkflowHandle[object, list[str]]) -> list[str]:
        """What was asked of it; ends it."""
        await handle.signal("end")
        return await handle.result()


@pytest.fixture
async def standing(settings: Settings, ledger: Ledger) -> Standing:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return Standing(await temporal.connect(settings, lazy=False), ledger)
            except RuntimeError:
                await asyncio.sleep(0.1)


def url(pr: int, action: str) -> str:
    return f"/v1/api/environments/env-{pr}/{action}"


async def test_extend_answers_the_new_end_and_tells_the_workflow_who_asked(
    web: httpx.AsyncClient, standing: Standing
) -> None:
    handle = await standing.begin(201)

    async with standing.working(201):
        answer = await web.post(url(201, "extend"), json={"duration": "12h"}, headers=AUTH)
        journal = await standing.journal(handle)

    shown = answer.json()
    assert answer.status_code == 200
    assert shown == {
        "update_id": shown["update_id"],
        "outcome": "done",
        "expires_at": END + 43200,
        "is_pinned": False,
    }
    assert shown["update_id"]
    assert journal == ["extend 43200 by team-local/local"]


async def test_every_action_reaches_the_workflow(web: httpx.AsyncClient, standing: Standing) -> None:
    handle = await standing.begin(202)

    async with standing.working(202):
        pinned = await web.post(url(202, "pin"), headers=AUTH)
        unpinned = await web.post(url(202, "unpin"), headers=AUTH)
        also_unpinned = await web.post(url(202, "pin"), json={"pinned": False}, headers=AUTH)
        redeployed = await web.post(url(202, "redeploy"), headers=AUTH)
        retried = await web.post(url(202, "retry"), headers=AUTH)
        approved = await web.post(url(202, "approve"), json={"sha": SHA}, headers=AUTH)
        journal = await standing.journal(handle)

    answers = (pinned, unpinned, also_unpinned, redeployed, retried, approved)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [answer.json()["is_pinned"] for answer in answers] == [True, False, False, False, False, False]
    assert [answer.json()["expires_at"] for answer in answers] == [None, END, END, END, END, None]
    assert journal == ["pin True", "pin False", "pin False", "redeploy", "retry", f"approve {SHA}"]


async def test_same_key_twice_has_one_effect_and_one_answer(web: httpx.AsyncClient, standing: Standing) -> None:
    handle = await standing.begin(203)
    headers = {**AUTH, "Idempotency-Key": "my-key-1"}

    async with standing.working(203):
        first = await web.post(url(203, "extend"), json={"seconds": 60}, headers=headers)
        second = await web.post(url(203, "extend"), json={"seconds": 60}, headers=headers)
        other_action = await web.post(url(203, "pin"), headers=headers)
        journal = await standing.journal(handle)

    assert first.json() == second.json()
    assert first.json()["update_id"] == "my-key-1"
    assert other_action.json()["is_pinned"] is True
    assert journal == ["extend 60 by team-local/local", "pin True"]


async def test_without_a_worker_it_is_accepted_and_done_once_when_one_comes(
    web: httpx.AsyncClient, standing: Standing
) -> None:
    handle = await standing.begin(204)
    headers = {**AUTH, "Idempotency-Key": "my-key-2"}

    unanswered = await web.post(url(204, "extend"), json={"seconds": 60}, headers=headers)
    async with standing.working(204):
        answered = await web.post(url(204, "extend"), json={"seconds": 60}, headers=headers)
        journal = await standing.journal(handle)

    assert (unanswered.status_code, answered.status_code) == (202, 200)
    assert (unanswered.json()["outcome"], unanswered.json()["update_id"]) == ("unanswered", "my-key-2")
    assert journal == ["extend 60 by team-local/local"]


@pytest.mark.parametrize(
    ("pr", "code", "status"),
    [
        (211, "ending", 409),
        (212, "not_ready", 409),
        (213, "too_long", 422),
        (214, "nothing_failed", 409),
        (215, "not_waiting", 409),
        (216, "head_moved", 409),
        (217, "awaiting_approval", 409),
    ],
)
async def test_refusal_has_the_validators_code_and_words(
    web: httpx.AsyncClient, standing: Standing, pr: int, code: str, status: int
) -> None:
    handle = await standing.begin(pr, refusal=code)

    async with standing.working(pr):
        answer = await web.post(url(pr, "extend"), json={"seconds": 60}, headers=AUTH)
        journal = await standing.journal(handle)

    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"] == f"not now: {code}"
    assert journal == []


async def test_mistake_in_a_workflow_is_no_refusal(web: httpx.AsyncClient, standing: Standing) -> None:
    handle = await standing.begin(218, refusal="bug")

    async with standing.working(218):
        answer = await web.post(url(218, "extend"), json={"seconds": 60}, headers=AUTH)
        await standing.journal(handle)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")


async def test_more_actions_than_may_wait_are_too_many(
    web: httpx.AsyncClient, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.updates.CALL_TIMEOUT_S", 60.0)  # The SDK asks again for 3 s; a busy machine takes longer.
    handle = await standing.begin(219)

    async with standing.working(219):
        waiting = [
            await handle.start_update("stop", StopRequest(), wait_for_stage=WorkflowUpdateStage.ACCEPTED)
            for _ in range(10)
        ]
        answer = await web.post(url(219, "pin"), headers=AUTH)
        await standing.journal(handle)

    assert len(waiting) == 10
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_updates")


async def test_environment_that_ended_takes_no_actions(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_environment("env-220", 220, status="reaped")

    answers = [
        await web.post(url(220, "extend"), json={"seconds": 60}, headers=AUTH),
        await web.post(url(220, "stop"), headers=AUTH),
        await web.post(url(220, "retry"), headers=AUTH),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "conflict")] * 3


async def test_environment_whose_workflow_ended_is_a_conflict(web: httpx.AsyncClient, standing: Standing) -> None:
    handle = await standing.begin(221)
    await handle.terminate()

    answer = await web.post(url(221, "pin"), headers=AUTH)

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "nothing runs for environment env-221 any more" in answer.json()["detail"]


@pytest.mark.parametrize(("pr", "status"), [(222, "terminated"), (223, "reaped")])
async def test_redeploy_of_an_environment_that_ended_wakes_its_pull_request(
    web: httpx.AsyncClient, standing: Standing, pr: int, status: str
) -> None:
    await standing.ledger.add_environment(f"env-{pr}", pr, status=status)
    headers = {**AUTH, "Idempotency-Key": "again"}

    answer = await web.post(url(pr, "redeploy"), headers=headers)

    handle = standing.client.get_workflow_handle(f"env/prj-1/pr/{pr}")
    description = await handle.describe()
    [event] = await pull_request_events(handle)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "started")
    assert (description.workflow_type, description.task_queue) == ("EnvironmentWorkflow", "stagely-workflows")
    assert (event.delivery_id, event.action) == ("redeploy/again", "redeploy")


async def test_redeploy_heals_an_environment_whose_workflow_was_terminated(
    web: httpx.AsyncClient, standing: Standing
) -> None:
    handle = await standing.begin(224)
    await handle.terminate()

    answer = await web.post(url(224, "redeploy"), headers=AUTH)

    [event] = await pull_request_events(standing.client.get_workflow_handle("env/prj-1/pr/224"))
    assert (answer.status_code, answer.json()["outcome"]) == (202, "started")
    assert event.action == "redeploy"


async def test_redeploy_of_an_outdated_environment_names_the_newer_one(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_environment("env-225", 225, status="terminated")
    await ledger.add_environment("env-225b", 225)

    answer = await web.post(url(225, "redeploy"), headers=AUTH)

    assert answer.status_code == 409
    assert "env-225b followed it" in answer.json()["detail"]


async def test_while_temporal_is_away_the_same_key_is_safe(settings: Settings, ledger: Ledger) -> None:
    await ledger.add_environment("env-226", 226, status="terminated")
    headers = {**AUTH, "Idempotency-Key": "my-key-3"}

    async with run_api(settings.model_copy(update={"temporal_address": "127.0.0.1:1"})) as web:
        answers = [
            await web.post("/v1/api/environments/env-1/pin", headers=headers),
            await web.post(url(226, "redeploy"), headers=headers),
        ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "unavailable")] * 2
    assert "my-key-3" in answers[0].json()["detail"]


async def test_action_on_another_teams_environment_finds_nothing(web: httpx.AsyncClient, ledger: Ledger) -> None:
    async with ledger.engine.begin() as db:
        await db.execute(text("INSERT INTO teams (id, slug, name, created_at) VALUES ('team-2', 'two', 'Two', now())"))
        await db.execute(text("UPDATE environments SET team_id = 'team-2'"))

    answers = [
        await web.post("/v1/api/environments/env-1/extend", json={"seconds": 60}, headers=AUTH),
        await web.post("/v1/api/environments/env-1/redeploy", headers=AUTH),
        await web.post("/v1/api/environments/env-1/approve", json={"sha": SHA}, headers=AUTH),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_action_without_a_token_is_refused(web: httpx.AsyncClient) -> None:
    answer = await web.post("/v1/api/environments/env-1/stop")

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("extend", {}),
        ("extend", {"seconds": 0}),
        ("extend", {"seconds": 60, "duration": "1m"}),
        ("extend", {"duration": "12 hours"}),
        ("extend", {"duration": "31d"}),
        ("approve", {"sha": "abc"}),
        ("approve", {"sha": "A" * 40}),
        ("pin", {"for": "ever"}),
    ],
    ids=str,
)
async def test_body_that_cannot_be_meant_is_refused(
    web: httpx.AsyncClient, action: str, body: dict[str, object]
) -> None:
    answer = await web.post(f"/v1/api/environments/env-1/{action}", json=body, headers=AUTH)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_key_that_is_no_word_is_refused(web: httpx.AsyncClient) -> None:
    headers = {**AUTH, "Idempotency-Key": "two words"}

    answer = await web.post("/v1/api/environments/env-1/pin", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_action_is_logged_with_who_asked_and_what_became_of_it(
    web: httpx.AsyncClient, standing: Standing, capsys: pytest.CaptureFixture[str]
) -> None:
    await standing.ledger.add_environment("env-227", 227, status="ready")

    await web.post(url(227, "stop"), headers={**AUTH, "Idempotency-Key": "my-key-4"})

    async def is_logged() -> bool:
        line = capsys.readouterr()
        said = line.out + line.err
        return "my-key-4" in said and "team-local/local" in said and "conflict" in said

    await eventually(is_logged)
