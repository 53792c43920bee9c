from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from tests.stagely.dev.forge.github_spec import webhook_complaints
from tests.stagely.dev.forge.running import SECRET, Hook, RunningForge, Work, running_forge


def _is_signed(hook: Hook) -> bool:
    expected = "sha256=" + hmac.new(SECRET.encode(), hook.body, hashlib.sha256).hexdigest()
    return hook.headers["x-hub-signature-256"] == expected


async def _push(forge: RunningForge, work: Work) -> None:
    await forge.ask(lambda c: c.push("local/shop", work.path, work.head(), "feature"))


async def test_opening_sends_a_signed_pull_request_event(forge: RunningForge, work: Work) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    await _push(forge, work)
    await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Add a door", number=7))

    hook = await forge.receiver.next()

    assert _is_signed(hook)
    assert (hook.headers["x-github-event"], len(hook.headers["x-github-delivery"])) == ("pull_request", 36)
    assert {"x-github-hook-id", "x-github-hook-installation-target-id"} <= hook.headers.keys()
    body = hook.json()
    assert (body["action"], body["number"], body["installation"]["id"]) == ("opened", 7, 1)
    assert body["repository"]["full_name"] == "local/shop"
    assert body["pull_request"]["head"]["sha"] == work.head()


async def test_every_event_has_the_shape_that_github_describes(forge: RunningForge, work: Work) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    await _push(forge, work)
    await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Add a door"))
    work.commit("a", "two")
    await _push(forge, work)
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "open"))

    bodies = [(await forge.receiver.next()).json() for _ in range(4)]

    assert [b["action"] for b in bodies] == ["opened", "synchronize", "closed", "reopened"]
    assert [webhook_complaints(b["action"], b) for b in bodies] == [[], [], [], []]


async def test_a_push_to_an_open_pull_request_tells_both_commits(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    before = work.head()
    after = work.commit("a", "two")

    await _push(forge, work)

    body = (await forge.receiver.next()).json()
    assert (body["action"], body["before"], body["after"]) == ("synchronize", before, after)


async def test_when_a_push_returns_the_pull_request_has_its_commit(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    work.commit("a", "two")

    await _push(forge, work)

    assert (await forge.ask(lambda c: c.pull("local/shop", 1))).head.sha == work.head()


async def test_a_push_of_the_same_commit_sends_nothing(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    await _push(forge, work)

    assert len(await forge.ask(lambda c: c.deliveries())) == 1


async def test_a_push_to_another_branch_sends_nothing(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    work.commit("a", "two")

    await forge.ask(lambda c: c.push("local/shop", work.path, work.head(), "other"))

    assert len(await forge.ask(lambda c: c.deliveries())) == 1


async def test_closing_twice_sends_one_event(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))
    await forge.ask(lambda c: c.update_pull("local/shop", 1, "closed"))

    deliveries = await forge.ask(lambda c: c.deliveries())

    assert [d.action for d in deliveries] == ["closed", "opened"]


async def test_deleting_the_branch_closes_the_pull_request(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    await forge.ask(lambda c: c.push("local/shop", work.path, "", "feature"))

    assert (await forge.receiver.next()).json()["action"] == "closed"


async def test_a_delivery_that_nobody_took_is_kept_and_can_be_sent_again(tmp_path: Path, work: Work) -> None:
    async with running_forge(tmp_path / "forge", webhook_url="http://127.0.0.1:1/nobody") as forge:
        await forge.ask(lambda c: c.ensure_repo("shop"))
        await _push(forge, work)
        await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Add a door"))
    async with running_forge(tmp_path / "forge") as forge:
        lost = await forge.delivered("opened")

        again = await forge.ask(lambda c: c.redeliver(lost.id))

        hook = await forge.receiver.next()
        assert (lost.status_code, lost.redelivery, again.redelivery) == (0, False, True)
        assert "ConnectError" in lost.error
        assert hook.headers["x-github-delivery"] == lost.guid
        assert _is_signed(hook)


async def test_an_answer_that_takes_too_long_fails_the_delivery(tmp_path: Path, work: Work) -> None:
    async with running_forge(tmp_path / "forge", webhook_timeout_s=0.05) as forge:
        forge.receiver.gate.clear()
        await forge.ask(lambda c: c.ensure_repo("shop"))
        await _push(forge, work)
        await forge.ask(lambda c: c.open_pull("local/shop", "feature", "Add a door"))

        delivery = await forge.delivered("opened")

        assert (delivery.status_code, delivery.error) == (0, "no answer within 0.05 s")
        forge.receiver.gate.set()


async def test_a_refused_delivery_keeps_the_status(forge: RunningForge, work: Work) -> None:
    forge.receiver.status = 401
    await forge.pull_of(work)

    delivery = await forge.delivered("opened")

    assert (delivery.status_code, delivery.error) == (401, "{}")
