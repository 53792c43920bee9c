from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.stagely.dev.forge.running import RunningForge, Work

SHOP = "/repos/local/shop"
TOKENS = "/app/installations/1/access_tokens"


async def _status(forge: RunningForge, path: str, credential: str) -> int:
    return (await forge.http.get(path, headers={"Authorization": credential})).status_code


async def test_without_a_credential_nothing_is_shown(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    assert await _status(forge, SHOP, "") == 401


async def test_an_unknown_token_is_refused(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    assert await _status(forge, SHOP, "token ghs_nobody") == 401


async def test_a_token_ends_after_an_hour(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    token = await forge.token()
    before = await _status(forge, SHOP, f"token {token}")

    forge.clock.skipped_s = 3601

    assert (before, await _status(forge, SHOP, f"token {token}")) == (200, 401)


async def test_a_token_of_one_repository_does_not_see_another(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    await forge.ask(lambda c: c.ensure_repo("bank"))
    token = await forge.token(["shop"])

    answers = [await _status(forge, path, f"Bearer {token}") for path in (SHOP, "/repos/local/bank")]

    assert answers == [200, 404]


async def test_a_token_that_reads_contents_may_not_comment(forge: RunningForge, work: Work) -> None:
    await forge.pull_of(work)
    token = await forge.token(["shop"], permissions={"contents": "read"})

    answer = await forge.http.post(
        f"{SHOP}/issues/1/comments", json={"body": "x"}, headers={"Authorization": f"token {token}"}
    )

    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")


async def test_nobody_gets_more_than_the_app_has(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    headers = {"Authorization": f"Bearer {forge.jwt()}"}

    answer = await forge.http.post(TOKENS, json={"permissions": {"contents": "write"}}, headers=headers)

    assert answer.status_code == 422


async def test_a_token_for_a_repository_that_is_not_there_is_refused(forge: RunningForge) -> None:
    headers = {"Authorization": f"Bearer {forge.jwt()}"}

    answer = await forge.http.post(TOKENS, json={"repositories": ["nothing"]}, headers=headers)

    assert answer.status_code == 422


async def test_tokens_are_void_after_a_reinstallation(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))
    token = await forge.token()

    await forge.http.post("/_dev/reinstall")

    assert await _status(forge, SHOP, f"token {token}") == 401
    assert await _status(forge, "/app/installations/1", f"Bearer {forge.jwt()}") == 404


async def test_a_jwt_of_another_key_is_refused(forge: RunningForge) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = int(forge.clock.now())
    signed = jwt.encode({"iss": "1", "iat": now, "exp": now + 60}, stranger, algorithm="RS256")

    assert await _status(forge, "/app", f"Bearer {signed}") == 401


async def test_a_jwt_of_another_app_is_refused(forge: RunningForge) -> None:
    assert await _status(forge, "/app", f"Bearer {forge.jwt(iss='2')}") == 401


async def test_a_jwt_that_ended_is_refused(forge: RunningForge) -> None:
    assert await _status(forge, "/app", f"Bearer {forge.jwt(exp=int(forge.clock.now()) - 1)}") == 401


async def test_a_jwt_for_longer_than_ten_minutes_is_refused(forge: RunningForge) -> None:
    assert await _status(forge, "/app", f"Bearer {forge.jwt(exp=int(forge.clock.now()) + 3600)}") == 401


async def test_an_app_needs_an_installation_token_for_repositories(forge: RunningForge) -> None:
    await forge.ask(lambda c: c.ensure_repo("shop"))

    assert await _status(forge, SHOP, f"Bearer {forge.jwt()}") == 401


async def test_an_installation_may_not_use_the_admin_routes(forge: RunningForge) -> None:
    token = await forge.token()

    answer = await forge.http.post("/_dev/repos", json={"name": "x"}, headers={"Authorization": f"token {token}"})

    assert answer.status_code == 403


async def test_no_repository_name_leaves_its_folder(forge: RunningForge) -> None:
    names = ["../x", "a/b", ".git", "", "x.git", "-c" * 60]

    answers = [(await forge.http.post("/_dev/repos", json={"name": n})).status_code for n in names]

    assert answers == [422] * 6
