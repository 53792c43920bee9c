from __future__ import annotations

import base64

from tests.stagely.dev.forge.running import RunningForge, Work

SHOP = "/repos/local/shop"


async def test_every_read_of_a_pull_request_has_github_shape(forge: RunningForge, work: Work) -> None:
    work.commit("deploy/web/Dockerfile", "FROM scratch")
    pull = await forge.pull_of(work)
    paths = [
        SHOP,
        f"{SHOP}/pulls",
        f"{SHOP}/pulls/{pull.number}",
        f"{SHOP}/issues/1/comments",
        f"{SHOP}/commits/{work.head()}/statuses",
        f"{SHOP}/commits/feature/status",
        f"{SHOP}/contents/compose.yaml?ref={work.head()}",
        f"{SHOP}/contents/deploy?ref={work.head()}",
        f"{SHOP}/collaborators/local/permission",
    ]

    answers = [(await forge.http.get(path)).status_code for path in paths]

    assert answers == [200] * 9


async def test_the_app_reads_itself_and_its_installation(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    headers = {"Authorization": f"Bearer {forge.jwt()}"}
    paths = ["/app", "/app/installations/1", f"{SHOP}/installation"]

    answers = [(await forge.http.get(path, headers=headers)).status_code for path in paths]

    assert answers == [200] * 3


async def test_a_comment_is_edited_in_place(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    made = await forge.http.post(f"{SHOP}/issues/1/comments", json={"body": "one"})
    edited = await forge.http.patch(f"{SHOP}/issues/comments/{made.json()['id']}", json={"body": "two"})

    listed = await forge.http.get(f"{SHOP}/issues/1/comments")

    assert (made.status_code, edited.status_code) == (201, 200)
    assert [c["body"] for c in listed.json()] == ["two"]


async def test_a_removed_comment_is_not_found(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    made = await forge.http.post(f"{SHOP}/issues/1/comments", json={"body": "one"})
    path = f"{SHOP}/issues/comments/{made.json()['id']}"

    removed = await forge.http.delete(path)

    assert removed.status_code == 204
    assert (await forge.http.get(path)).status_code == 404


async def test_comments_come_in_pages_with_links(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    for body in ("one", "two", "three"):
        await forge.http.post(f"{SHOP}/issues/1/comments", json={"body": body})

    second = await forge.http.get(f"{SHOP}/issues/1/comments", params={"per_page": 2, "page": 2})

    assert [c["body"] for c in second.json()] == ["three"]
    assert set(second.links) == {"prev", "first"}


async def test_the_newest_status_of_a_context_counts(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    for state in ("pending", "failure", "success"):
        body = {"state": state, "context": "stagely/preview", "description": "text", "target_url": "http://x.test/"}
        await forge.http.post(f"{SHOP}/statuses/{work.head()}", json=body)

    combined = (await forge.http.get(f"{SHOP}/commits/{work.head()}/status")).json()

    assert (combined["state"], combined["total_count"]) == ("success", 1)


async def test_a_status_of_an_unknown_commit_is_refused(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    answer = await forge.http.post(f"{SHOP}/statuses/{'0' * 40}", json={"state": "success"})

    assert answer.status_code == 422


async def test_a_status_description_above_140_characters_is_refused(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    body = {"state": "success", "description": "x" * 141}

    answer = await forge.http.post(f"{SHOP}/statuses/{work.head()}", json=body)

    assert answer.status_code == 422


async def test_a_file_in_a_folder_is_read_at_its_commit(forge: RunningForge, work: Work) -> None:
    old = work.commit("deploy/a b.yaml", "old: ü\n")
    work.commit("deploy/a b.yaml", "new\n")
    await forge.pull_of(work)

    answer = (await forge.http.get(f"{SHOP}/contents/deploy/a%20b.yaml", params={"ref": old})).json()

    assert base64.b64decode(answer["content"]).decode() == "old: ü\n"


async def test_a_symlink_to_a_file_is_read_as_that_file(forge: RunningForge, work: Work) -> None:
    (work.path / "docker-compose.yml").symlink_to("compose.yaml")
    work.commit("README", "text")
    await forge.pull_of(work)

    answer = (await forge.http.get(f"{SHOP}/contents/docker-compose.yml", params={"ref": "feature"})).json()

    assert (answer["type"], base64.b64decode(answer["content"])) == ("file", b"services: {}\n")


async def test_a_symlink_out_of_the_repository_stays_a_symlink(forge: RunningForge, work: Work) -> None:
    (work.path / "hosts").symlink_to("../../../etc/hosts")
    work.commit("README", "text")
    await forge.pull_of(work)

    answer = (await forge.http.get(f"{SHOP}/contents/hosts", params={"ref": "feature"})).json()

    assert (answer["type"], answer["target"]) == ("symlink", "../../../etc/hosts")


async def test_a_file_above_one_mebibyte_comes_without_content(forge: RunningForge, work: Work) -> None:
    work.commit("large", "x" * (1024 * 1024 + 1))
    await forge.pull_of(work)

    answer = (await forge.http.get(f"{SHOP}/contents/large", params={"ref": "feature"})).json()

    assert (answer["encoding"], answer["content"], answer["size"]) == ("none", "", 1048577)


async def test_what_is_not_there_is_not_found(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    paths = [
        f"{SHOP}/contents/nothing?ref=feature",
        f"{SHOP}/contents/compose.yaml?ref=--help",
        f"{SHOP}/pulls/99",
        f"{SHOP}/issues/99/comments",
        f"{SHOP}/issues/comments/99",
        f"{SHOP}/collaborators/stranger/permission",
        "/repos/local/other",
        "/repos/local/shop/nonsense",
    ]

    answers = [(await forge.http.get(path)).status_code for path in paths]

    assert answers == [404] * 8


async def test_broken_json_is_refused(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)

    answer = await forge.http.post(f"{SHOP}/issues/1/comments", content=b"{")

    assert (answer.status_code, answer.json()["message"]) == (400, "Problems parsing JSON")
