"""What people and the CLI ask: with a token, in one form, and never another team's."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import insert, text

from stagely import agent_archive
from stagely.db.models import utc_now
from stagely.db.tables import api_tokens, teams
from stagely.settings import Settings
from tests.api.ledger import API_TOKEN, SHA, Ledger
from tests.api.wire import DEADLINE_S
from tests.api.world import run_api

AUTH = {"Authorization": f"Bearer {API_TOKEN}"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}])
async def test_without_a_valid_token_nothing_is_shown(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await web.get("/v1/api/environments", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_repository_becomes_a_project_once(web: httpx.AsyncClient) -> None:
    body = {"slug": "notes", "repo_url": "http://forge/local/notes.git", "repo_full_name": "local/notes"}

    first = await web.post("/v1/api/projects", json=body, headers=AUTH)
    second = await web.post("/v1/api/projects", json={**body, "slug": "other"}, headers=AUTH)
    listed = await web.get("/v1/api/projects", headers=AUTH)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() == {"id": first.json()["id"], **body}
    assert [project["slug"] for project in listed.json()] == ["guestbook", "notes"]


async def test_slug_of_another_repository_is_a_conflict(web: httpx.AsyncClient) -> None:
    body = {"slug": "guestbook", "repo_url": "http://forge/local/second.git", "repo_full_name": "local/second"}

    answer = await web.post("/v1/api/projects", json=body, headers=AUTH)

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:secret@forge/x.git", "ssh://git@forge/x"])
async def test_repository_address_must_be_plain_http(web: httpx.AsyncClient, url: str) -> None:
    body = {"slug": "x", "repo_url": url, "repo_full_name": "local/x"}

    answer = await web.post("/v1/api/projects", json=body, headers=AUTH)

    assert (answer.status_code, answer.json()["code"]) == (422, "spec_invalid")
    assert "secret" not in answer.text


async def test_environment_is_shown_with_run_steps_and_urls(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_run()

    answer = await web.get("/v1/api/environments/env-1", headers=AUTH)

    shown = answer.json()
    assert answer.status_code == 200
    assert (shown["project"], shown["repo"], shown["pr"]) == ("guestbook", "local/guestbook", 7)
    assert (shown["state"], shown["commit"], shown["urls"]) == ("building", SHA, {"web": "http://x.localhost"})
    assert shown["run"]["builds"] == [
        {"name": "api", "arch": "amd64", "state": "running", "vm_id": "vm-1", "position": None}
    ]
    assert [(step["name"], step["subject"], step["state"]) for step in shown["steps"]] == [
        ("clone", "api", "completed"),
        ("clone", "web", "completed"),
        ("build", "api", "running"),
    ]
    assert shown["phases"] == {"clone": 3.0}


async def test_list_is_filtered_and_hides_what_ended(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_environment("env-2", 8, status="terminated")
    await ledger.add_environment("env-3", 9)

    async def ids(**query: str | int) -> set[str]:
        answer = await web.get("/v1/api/environments", params=query, headers=AUTH)
        return {environment["id"] for environment in answer.json()}

    assert await ids() == {"env-1", "env-3"}
    assert await ids(all="true") == {"env-1", "env-2", "env-3"}
    assert await ids(pr=9) == {"env-3"}
    assert await ids(project="guestbook") == {"env-1", "env-3"}
    assert await ids(repo="local/other") == set()


async def test_environment_of_another_team_is_not_found(web: httpx.AsyncClient, ledger: Ledger) -> None:
    async with ledger.engine.begin() as db:
        await db.execute(insert(teams).values(id="team-2", slug="two", name="Two", created_at=utc_now()))
        await db.execute(text("UPDATE environments SET team_id = 'team-2'"))

    answers = [
        await web.get("/v1/api/environments/env-1", headers=AUTH),
        await web.get("/v1/api/environments/env-1/logs", headers=AUTH),
        await web.get("/v1/api/environments/env-1/vms", headers=AUTH),
        await web.post("/v1/api/environments/env-1/stop", headers=AUTH),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 404]
    assert answers[0].json()["code"] == "not_found"


async def test_ledger_of_vms_is_shown(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1", state="gone")
    await ledger.add_vm("vm-2", role="preview", state="running")

    answer = await web.get("/v1/api/environments/env-1/vms", headers=AUTH)

    assert [(vm["id"], vm["role"], vm["state"]) for vm in answer.json()] == [
        ("vm-1", "builder", "gone"),
        ("vm-2", "preview", "running"),
    ]


async def test_logs_are_read_from_any_point_on(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.add_chunk(1, "build/api", "one\n")
    await ledger.add_chunk(2, "service/web", "zwei ✓\n")
    await ledger.add_chunk(3, "build/api", "three\n")

    everything = await web.get("/v1/api/environments/env-1/logs", headers=AUTH)
    lines = [json.loads(line) for line in everything.text.splitlines()]
    rest = await web.get("/v1/api/environments/env-1/logs", params={"after": lines[1]["id"]}, headers=AUTH)
    builds = await web.get("/v1/api/environments/env-1/logs", params={"stream": "build/api"}, headers=AUTH)

    assert everything.headers["content-type"] == "application/x-ndjson"
    assert [line["data"] for line in lines] == ["one\n", "zwei ✓\n", "three\n"]
    assert [json.loads(line)["data"] for line in rest.text.splitlines()] == ["three\n"]
    assert [json.loads(line)["data"] for line in builds.text.splitlines()] == ["one\n", "three\n"]


async def test_followed_logs_come_live_and_end_with_the_environment(
    web: httpx.AsyncClient, ledger: Ledger, redis: Redis
) -> None:
    await ledger.add_chunk(1, "build/api", "one\n")
    url = "/v1/api/environments/env-1/logs?follow=true"

    async with asyncio.timeout(DEADLINE_S), web.stream("GET", url, headers=AUTH) as answer:
        lines = answer.aiter_lines()
        first = json.loads(await anext(lines))
        await ledger.add_chunk(2, "build/api", "two\n")
        await redis.publish("logs:env-1", "")
        second = json.loads(await anext(lines))
        async with ledger.engine.begin() as db:
            await db.execute(text("UPDATE environments SET status = 'terminated'"))
        rest = [line async for line in lines]

    assert (first["data"], second["data"], rest) == ("one\n", "two\n", [])


async def test_followed_logs_come_without_redis_too(settings: Settings, ledger: Ledger) -> None:
    url = "/v1/api/environments/env-1/logs?follow=true"

    async with (
        run_api(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as web,
        asyncio.timeout(DEADLINE_S),
        web.stream("GET", url, headers=AUTH) as answer,
    ):
        await ledger.add_chunk(1, "build/api", "one\n")
        line = json.loads(await anext(answer.aiter_lines()))

    assert line["data"] == "one\n"


async def test_agents_file_is_served_by_its_digest(web: httpx.AsyncClient) -> None:
    built = agent_archive.archive()

    named = (await web.get("/v1/agent/archive")).json()
    found = await web.get(f"/v1/agent/archive/{named['sha256']}/stagely-agent.pyz")
    other = await web.get(f"/v1/agent/archive/{'0' * 64}/stagely-agent.pyz")

    assert named["sha256"] == built.sha256
    assert found.content == built.content
    assert (other.status_code, other.json()["code"]) == (404, "not_found")


async def test_database_away_is_a_problem_and_not_a_crash(settings: Settings, ledger: Ledger) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://stagely@127.0.0.1:1/none"})

    async with run_api(away) as web:
        answer = await web.get("/v1/api/environments", headers=AUTH)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_pages_that_need_no_token(web: httpx.AsyncClient) -> None:
    health = await web.get("/healthz")
    docs = await web.get("/docs")
    nowhere = await web.get("/v1/api/nowhere")

    assert health.json() == {"status": "ok"}
    assert "https://" not in docs.text
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")


async def test_token_of_another_installation_is_not_ours(web: httpx.AsyncClient, ledger: Ledger) -> None:
    async with ledger.engine.begin() as db:
        await db.execute(api_tokens.delete())

    answer = await web.get("/v1/api/projects", headers=AUTH)

    assert answer.status_code == 401
