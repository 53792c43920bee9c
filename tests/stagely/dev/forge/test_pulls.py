from __future__ import annotations

import pytest

from stagely.errors import Conflict, NotFound
from tests.stagely.dev.forge.running import RunningForge, Work


async def test_numbers_count_up(forge: RunningForge, work: Work) -> None:
    first = await forge.pull_of(work)
    await forge.ask(lambda c: c.push("local/shop", work.path, work.head(), "second"))

    second = await forge.ask(lambda c: c.open_pull("local/shop", "second", "Two"))

    assert (first.number, second.number) == (1, 2)


async def test_a_number_may_be_asked_for(forge: RunningForge, work: Work) -> None:
    pull = await forge.pull_of(work, number=42)

    assert pull.number == 42
    assert pull.html_url == "http://forge.test/local/shop/pull/42"


async def test_a_taken_number_is_refused(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work, number=42)
    await forge.ask(lambda c: c.push("local/shop", work.path, work.head(), "second"))

    with pytest.raises(Conflict, match="Pull request 42 exists already"):
        await forge.ask(lambda c: c.open_pull("local/shop", "second", "Two", number=42))


async def test_number_zero_is_refused(forge: RunningForge, work: Work) -> None:
    with pytest.raises(Conflict, match="from 1 to"):
        await forge.pull_of(work, number=0)


async def test_a_branch_has_one_open_pull_request(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    with pytest.raises(Conflict, match="A pull request already exists for local:feature: 1"):
        await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Again"))


async def test_a_branch_that_was_not_pushed_is_refused(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    with pytest.raises(Conflict, match="There is no branch 'feature'"):
        await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Early"))


async def test_a_branch_without_news_is_refused(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    with pytest.raises(Conflict, match="No commits between main and main"):
        await forge.ask(lambda c: c.open_pull("local/shop", "main", "Nothing"))


async def test_a_closed_pull_request_keeps_its_commit_until_it_is_reopened(forge: RunningForge, work: Work) -> None:
    first = work.head()
    await forge.pull_of(work)
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))
    second = work.commit("a", "two")
    await forge.ask(lambda c: c.push("local/shop", work.path, second, "feature"))
    closed = await forge.ask(lambda c: c.pull("local/shop", 1))

    reopened = await forge.ask(lambda c: c.update_pull("local/shop", 1, "open"))

    assert (closed.state, closed.head.sha) == ("closed", first)
    assert (reopened.state, reopened.head.sha) == ("open", second)


async def test_pull_requests_are_found_by_branch_and_state(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))
    await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Again"))

    found = await forge.ask(lambda c: c.pulls("local/shop", branch="feature"))
    open_ones = await forge.ask(lambda c: c.pulls("local/shop", branch="feature", state="open"))
    others = await forge.ask(lambda c: c.pulls("local/shop", branch="other"))

    assert [p.number for p in found] == [2, 1]
    assert [p.number for p in open_ones] == [2]
    assert others == []


async def test_a_second_open_pull_request_cannot_come_by_reopening(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))
    await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Again"))

    with pytest.raises(Conflict, match="already exists"):
        await forge.ask(lambda c: c.update_pull("local/shop", 1, "open"))


async def test_an_unknown_pull_request_is_not_found(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    with pytest.raises(NotFound):
        await forge.ask(lambda c: c.update_pull("local/shop", 7, "closed"))


async def test_a_pull_request_counts_what_it_changes(forge: RunningForge, work: Work) -> None:
    work.commit("a", "one\ntwo\n")
    await forge.pull_of(work)

    pull = (await forge.http.get("/repos/local/shop/pulls/1")).json()

    assert (pull["commits"], pull["additions"], pull["deletions"], pull["changed_files"]) == (2, 3, 0, 2)
