"""The GitHub client against the local forge, whose every answer is checked against GitHub's OpenAPI description."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from stagely.errors import GitHubRefused, GitHubUnavailable, NotFound, SpecInvalid
from stagely.github import GitHub, PullRequest
from stagely.settings import Settings
from tests.stagely.dev.forge.running import Clock, RunningForge, Work, app_key, make_work, running_forge

SHOP = "local/shop"


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[RunningForge]:
    async with running_forge(tmp_path / "forge") as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path / "work")


@pytest.fixture
async def github(forge: RunningForge, tmp_path: Path) -> AsyncIterator[GitHub]:
    client = GitHub(_settings(forge, tmp_path), now=forge.clock.now)
    yield client
    await client.aclose()


def _settings(forge: RunningForge, folder: Path, app_id: str = "1") -> Settings:
    key = folder / "app.pem"
    key.write_text(app_key()[0])
    return Settings(github_api_url=forge.url, github_app_id=app_id, github_app_key_file=key)


def _copy_pulls(database: Path, numbers: Iterable[int]) -> None:
    """Pull request 1 once more under each of these numbers; opening two hundred takes a minute."""
    with closing(sqlite3.connect(database)) as db, db:
        db.row_factory = sqlite3.Row
        first = dict(db.execute("select * from pulls where number = 1").fetchone())
        del first["id"]
        marks = ", ".join("?" * len(first))
        rows = [tuple((first | {"number": number}).values()) for number in numbers]
        db.executemany(f"insert into pulls ({', '.join(first)}) values ({marks})", rows)


@dataclass(frozen=True, slots=True)
class _Said:
    author: str
    body: str


async def _comments(forge: RunningForge) -> list[_Said]:
    answer = await forge.http.get(f"/repos/{SHOP}/issues/1/comments")
    return [_Said(c["user"]["login"], c["body"]) for c in answer.json()]


async def _chat(forge: RunningForge, count: int) -> None:
    for _ in range(count):
        await forge.http.post(f"/repos/{SHOP}/issues/1/comments", json={"body": "chat"})


async def test_a_pull_request_is_read(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)

    pull = await github.pull_request(SHOP, 1)

    assert pull == PullRequest(
        number=1,
        state="open",
        merged=False,
        draft=False,
        title="Add a door",
        head_sha=work.head(),
        head_ref="feature",
        base_sha=pull.base_sha,
        base_ref="main",
        head_repo_full_name=SHOP,
        author="local",
    )


async def test_a_closed_pull_request_is_closed(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.update_pull(SHOP, 1, "closed"))

    assert (await github.pull_request(SHOP, 1)).state == "closed"


async def test_closed_pull_requests_are_not_listed_as_open(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    opened = await github.open_pull_requests(SHOP)

    await forge.ask(lambda c: c.update_pull(SHOP, 1, "closed"))

    assert opened == {1}
    assert await github.open_pull_requests(SHOP) == set()


async def test_open_pull_requests_are_listed_over_all_pages(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    _copy_pulls(forge.folder / "forge.db", range(2, 203))

    assert await github.open_pull_requests(SHOP) == set(range(1, 203))


async def test_files_are_read_at_the_commit(forge: RunningForge, github: GitHub, work: Work) -> None:
    sha = work.commit("deploy/ä b.yaml", "name: ü\n")
    work.commit("deploy/ä b.yaml", "name: later\n")
    await forge.pull_of(work)

    files = await github.files_at(SHOP, ["deploy/ä b.yaml", "compose.yaml", "nothing", "deploy"], sha)

    assert files == {"deploy/ä b.yaml": "name: ü\n", "compose.yaml": "services: {}\n", "nothing": None, "deploy": None}


async def test_a_file_that_is_no_text_is_the_users_to_fix(forge: RunningForge, github: GitHub, work: Work) -> None:
    (work.path / "stagely.yaml").write_bytes(b"\xff\xfe")
    sha = work.commit("README", "text")
    await forge.pull_of(work)

    with pytest.raises(SpecInvalid, match=r"stagely\.yaml is not UTF-8 text"):
        await github.files_at(SHOP, ["compose.yaml", "stagely.yaml"], sha)


async def test_a_huge_file_is_the_users_to_fix(forge: RunningForge, github: GitHub, work: Work) -> None:
    sha = work.commit("stagely.yaml", "x" * (1024 * 1024 + 1))
    await forge.pull_of(work)

    with pytest.raises(SpecInvalid, match=r"stagely\.yaml is 1048577 bytes large"):
        await github.file_at(SHOP, "stagely.yaml", sha)


async def test_a_comment_is_made_found_and_edited_in_place(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    made = await github.create_comment(SHOP, 1, "<!-- mark --> building")

    found = await github.find_comment(SHOP, 1, "<!-- mark -->")
    await github.update_comment(SHOP, made, "<!-- mark --> ready")

    assert found == made
    assert await _comments(forge) == [_Said("stagely[bot]", "<!-- mark --> ready")]


async def test_a_strangers_comment_with_our_marker_is_not_ours(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    await forge.http.post(f"/repos/{SHOP}/issues/1/comments", json={"body": "<!-- mark --> mine"})

    assert await github.find_comment(SHOP, 1, "<!-- mark -->") is None


async def test_a_comment_behind_the_first_hundred_is_found(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    await _chat(forge, 100)
    made = await github.create_comment(SHOP, 1, "<!-- mark -->")

    assert await github.find_comment(SHOP, 1, "<!-- mark -->") == made


async def test_editing_a_removed_comment_says_not_found(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    made = await github.create_comment(SHOP, 1, "text")
    await forge.http.delete(f"/repos/{SHOP}/issues/comments/{made}")

    with pytest.raises(NotFound):
        await github.update_comment(SHOP, made, "text")


async def test_a_status_is_set_and_a_long_description_cut(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)

    await github.set_status(SHOP, work.head(), "failure", "stagely/preview", "x" * 200, "http://x.test/")

    status = (await forge.ask(lambda c: c.statuses(SHOP, work.head())))[0]
    assert (status.state, status.context, status.target_url) == ("failure", "stagely/preview", "http://x.test/")
    assert status.description == "x" * 139 + "…"


async def test_permission_of_the_owner_and_of_nobody(forge: RunningForge, github: GitHub) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    found = (await github.permission(SHOP, "local"), await github.permission(SHOP, "no/body"))

    assert found == ("admin", "none")


async def test_a_clone_token_reads_its_repository_and_nothing_else(
    forge: RunningForge, github: GitHub, work: Work
) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.ensure_repo("bank"))
    headers = {"Authorization": f"token {await github.clone_token(SHOP)}"}

    read = await forge.http.get(f"/repos/{SHOP}/contents/compose.yaml?ref=feature", headers=headers)
    wrote = await forge.http.post(f"/repos/{SHOP}/issues/1/comments", json={"body": "x"}, headers=headers)
    foreign = await forge.http.get("/repos/local/bank", headers=headers)

    assert (read.status_code, wrote.status_code, foreign.status_code) == (200, 403, 404)


async def test_a_token_is_kept_until_shortly_before_its_end(forge: RunningForge, tmp_path: Path, work: Work) -> None:
    await forge.pull_of(work)
    clock = Clock()
    github = GitHub(_settings(forge, tmp_path), now=clock.now)
    await github.pull_request(SHOP, 1)
    await forge.fault("unavailable", path="/access_tokens")

    clock.skipped_s = 3600 - 90
    assert (await github.pull_request(SHOP, 1)).number == 1
    clock.skipped_s = 3600 - 30
    with pytest.raises(GitHubUnavailable, match="/access_tokens"):
        await github.pull_request(SHOP, 1)
    assert (await github.pull_request(SHOP, 1)).number == 1
    await github.aclose()


async def test_a_reinstalled_app_is_found_again(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    await github.pull_request(SHOP, 1)

    await forge.http.post("/_dev/reinstall")

    assert (await github.pull_request(SHOP, 1)).number == 1


async def test_a_clone_token_after_a_reinstallation(forge: RunningForge, github: GitHub) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    await github.clone_token(SHOP)

    await forge.http.post("/_dev/reinstall")

    assert (await github.clone_token(SHOP)).startswith("ghs_")


async def test_an_unknown_pull_request_is_not_found(forge: RunningForge, github: GitHub) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    with pytest.raises(NotFound, match=r"404 to GET /repos/local/shop/pulls/9"):
        await github.pull_request(SHOP, 9)


async def test_an_unknown_repository_is_not_found(github: GitHub) -> None:
    with pytest.raises(NotFound, match="not installed on this repository"):
        await github.pull_request("local/nothing", 1)


async def test_a_wrong_app_is_refused(forge: RunningForge, tmp_path: Path) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    stranger = GitHub(_settings(forge, tmp_path, app_id="2"))

    with pytest.raises(GitHubRefused, match="Check the GitHub App's id, private key and this machine's clock"):
        await stranger.pull_request(SHOP, 1)
    await stranger.aclose()


async def test_an_app_that_is_not_set_up_is_refused(forge: RunningForge) -> None:
    nobody = GitHub(Settings(github_api_url=forge.url, github_app_id=""))

    with pytest.raises(GitHubRefused, match="STAGELY_GITHUB_APP_ID"):
        await nobody.clone_token(SHOP)


async def test_the_quotas_end_says_when_to_come_back(forge: RunningForge, github: GitHub, work: Work) -> None:
    await forge.pull_of(work)
    await forge.fault("primary_limit", path="/pulls/", retry_after_s=900)

    with pytest.raises(GitHubUnavailable, match="API rate limit exceeded") as caught:
        await github.pull_request(SHOP, 1)

    assert caught.value.retry_after_s == pytest.approx(900, abs=60)
    assert (await github.pull_request(SHOP, 1)).number == 1


@pytest.mark.parametrize(("kind", "pause_s"), [("secondary_limit", 7), ("secondary_limit_bare", 60)])
async def test_too_much_at_once_says_when_to_come_back(
    forge: RunningForge, github: GitHub, work: Work, kind: str, pause_s: float
) -> None:
    await forge.pull_of(work)
    await forge.fault(kind, path="/pulls/", retry_after_s=7)

    with pytest.raises(GitHubUnavailable) as caught:
        await github.pull_request(SHOP, 1)

    assert caught.value.retry_after_s == pause_s


async def test_a_rate_limit_while_buying_the_token_is_a_rate_limit(
    forge: RunningForge, github: GitHub, work: Work
) -> None:
    await forge.pull_of(work)
    await forge.fault("secondary_limit", path="/access_tokens", retry_after_s=7)

    with pytest.raises(GitHubUnavailable) as caught:
        await github.pull_request(SHOP, 1)

    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("kind", ["unavailable", "nonsense"])
async def test_an_outage_is_for_later(forge: RunningForge, github: GitHub, work: Work, kind: str) -> None:
    await forge.pull_of(work)
    await forge.fault(kind, path="/pulls/")

    with pytest.raises(GitHubUnavailable, match="Try again"):
        await github.pull_request(SHOP, 1)

    assert (await github.pull_request(SHOP, 1)).number == 1


async def test_silence_has_a_deadline(forge: RunningForge, tmp_path: Path) -> None:
    hasty = GitHub(_settings(forge, tmp_path), request_timeout_s=0.2)
    await forge.fault("silence", path="/installation")

    with pytest.raises(GitHubUnavailable, match="did not answer GET /repos/local/shop/installation"):
        await hasty.pull_request(SHOP, 1)
    await hasty.aclose()


async def test_a_github_that_is_away_is_for_later(tmp_path: Path) -> None:
    key = tmp_path / "app.pem"
    key.write_text(app_key()[0])
    settings = Settings(github_api_url="http://127.0.0.1:1", github_app_id="1", github_app_key_file=key)
    nowhere = GitHub(settings)

    with pytest.raises(GitHubUnavailable, match=r"at http://127\.0\.0\.1:1: "):
        await nowhere.pull_request(SHOP, 1)
    await nowhere.aclose()


async def test_an_answer_with_a_token_is_never_quoted(forge: RunningForge, github: GitHub) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    await forge.fault("nonsense", path="/access_tokens")

    with pytest.raises(GitHubUnavailable) as caught:
        await github.clone_token(SHOP)

    assert "It works!" not in str(caught.value)
