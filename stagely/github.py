"""GitHub's REST API as a GitHub App: the few calls Stagely needs. The only file that imports githubkit.

One App client signs short JWTs and buys installation tokens, one per repository; a second client carries them. Answers
are read by small models of our own: githubkit's full ones refuse an answer of 600 fields for one odd field that
nobody reads. Nothing is retried here: the caller is a Temporal activity.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import githubkit
import httpx
from githubkit.cache import MemCacheStrategy
from githubkit.config import get_config
from githubkit.exception import GitHubException, RateLimitExceeded, RequestFailed
from pydantic import TypeAdapter, ValidationError

from stagely import github_answers as answers
from stagely.errors import GitHubRefused, GitHubUnavailable, NotFound, SpecInvalid, StagelyError
from stagely.settings import Settings

REQUEST_TIMEOUT_S = 10.0  # GitHub answers within 10 s or not at all.
CALL_TIMEOUT_S = 25.0  # A cold call is three requests (installation, token, itself); the activity's own limit is 30 s.
TOKEN_MARGIN_S = 60.0  # A token this close to its end is renewed: clocks differ, and requests take time.
RATE_LIMIT_PAUSE_S = 60.0  # GitHub docs, REST rate limits: without a header wait at least one minute.
FILES_AT_ONCE = 8  # GitHub docs, best practices: many requests at once meet the secondary rate limit.
COMMENT_PAGE = 100
COMMENT_PAGES = 20  # Comments come oldest first, and ours is written early: 2,000 are enough.
PULL_PAGE = 100
PULL_PAGES = 50  # 5,000 open pull requests; who has more of them has no machine for each.
DESCRIPTION_LIMIT = 140  # Characters of a commit status; GitHub answers 422 to more.

A = TypeVar("A", bound=githubkit.BaseAuthStrategy)
T = TypeVar("T")


class StatusState(StrEnum):
    """The states of a commit status."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request now. `state` is open or closed; `head_repo_full_name` is None when the fork was deleted."""

    number: int
    state: str
    merged: bool
    draft: bool
    title: str
    head_sha: str
    head_ref: str
    base_sha: str
    base_ref: str
    head_repo_full_name: str | None
    author: str


class GitHub:
    """Every method takes a repository's full name, "owner/name".

    Raises, from every method:
        GitHubUnavailable: no answer within CALL_TIMEOUT_S, 5xx or a rate limit; `retry_after_s` when GitHub said so.
        GitHubRefused: the App may not do this, or GitHub finds the request wrong; a person must act.
        NotFound: no such repository, or the App is not installed on it; GitHub does not tell the two apart.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._request_timeout_s = request_timeout_s
        self._now = now
        self._installations: dict[str, int] = {}
        self._tokens: dict[str, answers.Token] = {}
        self._tls = ssl.create_default_context()
        self._bearer: _KeptClient[githubkit.UnauthAuthStrategy] = _KeptClient(
            githubkit.UnauthAuthStrategy(), config=self._config()
        )
        self._app: _KeptClient[githubkit.AppAuthStrategy] | None = None

    async def aclose(self) -> None:
        """Close the connections. The object is not used afterwards."""
        await self._bearer.aclose()
        if self._app is not None:
            await self._app.aclose()

    async def pull_request(self, repo: str, number: int) -> PullRequest:
        pull = await self._call(repo, "GET", f"/repos/{repo}/pulls/{number}", answers.PULL)
        return PullRequest(
            number=pull.number,
            state=pull.state,
            merged=pull.merged,
            draft=pull.draft,
            title=pull.title,
            head_sha=pull.head.sha,
            head_ref=pull.head.ref,
            base_sha=pull.base.sha,
            base_ref=pull.base.ref,
            head_repo_full_name=pull.head.repo.full_name if pull.head.repo else None,
            author=pull.user.login if pull.user else "ghost",
        )

    async def open_pull_requests(self, repo: str) -> frozenset[int]:
        """The numbers of all open pull requests, up to PULL_PAGES pages of them, newest first.

        One that changes its page while this reads may be missing: look at it by itself before acting on that.
        """
        numbers: set[int] = set()
        for page in range(1, PULL_PAGES + 1):
            wanted = {"state": "open", "per_page": PULL_PAGE, "page": page}
            pulls = await self._call(repo, "GET", f"/repos/{repo}/pulls", answers.PULLS, params=wanted)
            numbers.update(pull.number for pull in pulls)
            if len(pulls) < PULL_PAGE:
                break
        return frozenset(numbers)

    async def file_at(self, repo: str, path: str, sha: str) -> str | None:
        """The text of the file at this commit; None when there is none, or when the path is a folder or submodule.

        Raises SpecInvalid when the file is not UTF-8 text or larger than 1 MiB (GitHub sends no content then).
        """
        try:
            found = await self._call(
                repo, "GET", f"/repos/{repo}/contents/{quote(path)}", answers.CONTENT, params={"ref": sha}
            )
        except NotFound:
            return None
        if isinstance(found, list) or found.type != "file":
            return None
        return _text(path, found)

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]:
        """`file_at` of several paths, a few at once; the first error ends all of them."""
        gate = asyncio.Semaphore(FILES_AT_ONCE)

        async def read(path: str) -> str | None:
            async with gate:
                return await self.file_at(repo, path, sha)

        async with _deadline(f"{len(paths)} files of {repo}"):
            await self._token(repo)  # Bought once, before all of them would.
            return dict(zip(paths, await _together([read(path) for path in paths]), strict=True))

    async def create_comment(self, repo: str, pr: int, text: str) -> int:
        """The id of the new comment. A second call makes a second comment."""
        path = f"/repos/{repo}/issues/{pr}/comments"
        return (await self._call(repo, "POST", path, answers.COMMENT, json={"body": text})).id

    async def update_comment(self, repo: str, comment_id: int, text: str) -> None:
        """Replace the text. Raises NotFound when somebody deleted the comment."""
        await self._call(
            repo, "PATCH", f"/repos/{repo}/issues/comments/{comment_id}", answers.COMMENT, json={"body": text}
        )

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None:
        """The id of this App's oldest comment that contains the marker.

        Only its own: anybody can write the marker into a comment, and nobody but its author may edit that one.
        """
        for page in range(1, COMMENT_PAGES + 1):
            comments = await self._call(
                repo,
                "GET",
                f"/repos/{repo}/issues/{pr}/comments",
                answers.COMMENTS,
                params={"per_page": COMMENT_PAGE, "page": page},
            )
            for comment in comments:
                if marker in (comment.body or "") and comment.is_by(self._settings.github_app_id):
                    return comment.id
            if len(comments) < COMMENT_PAGE:
                return None
        return None

    async def set_status(
        self, repo: str, sha: str, state: str, context: str, description: str, target_url: str
    ) -> None:
        """Say something about a commit; the newest of one context counts. `state`: a StatusState."""
        body = {
            "state": StatusState(state).value,
            "context": context,
            "description": _shortened(description),
            "target_url": target_url,
        }
        await self._call(repo, "POST", f"/repos/{repo}/statuses/{sha}", answers.ANYTHING, json=body)

    async def permission(self, repo: str, user: str) -> str:
        """What this user may do there: admin, write, read or none. A user that does not exist may do nothing."""
        path = f"/repos/{repo}/collaborators/{quote(user, safe='')}/permission"
        try:
            return (await self._call(repo, "GET", path, answers.PERMISSION)).permission
        except NotFound:
            return "none"

    async def clone_token(self, repo: str) -> str:
        """A new token that can read this one repository's code and nothing else, for at most an hour.

        It is the password of HTTP basic authentication; the user name is `x-access-token`.
        """
        async with _deadline(f"a clone token for {repo}"):
            return (await self._buy_token(repo, {"contents": "read"})).token

    # --- tokens ---

    async def _token(self, repo: str) -> str:
        token = self._tokens.get(repo)
        if token is None or self._now() > token.expires_at.timestamp() - TOKEN_MARGIN_S:
            token = self._tokens[repo] = await self._buy_token(repo, None)
        return token.token

    async def _buy_token(self, repo: str, permissions: dict[str, str] | None) -> answers.Token:
        """A token for this repository only; None asks for everything that the App was granted."""
        body: dict[str, object] = {"repositories": [repo.partition("/")[2]]}
        if permissions is not None:
            body["permissions"] = permissions
        known = repo in self._installations
        try:
            return await self._buy(await self._installation(repo), body)
        except (NotFound, GitHubRefused):
            if not known:
                raise
            # The App was installed anew since we looked: look once more.
            self._forget(repo)
            return await self._buy(await self._installation(repo), body)

    async def _buy(self, installation: int, body: dict[str, object]) -> answers.Token:
        path = f"/app/installations/{installation}/access_tokens"
        return await _request(self._app_client(), "POST", path, answers.TOKEN, json=body)

    async def _installation(self, repo: str) -> int:
        if repo not in self._installations:
            found = await _request(self._app_client(), "GET", f"/repos/{repo}/installation", answers.INSTALLATION)
            self._installations[repo] = found.id
        return self._installations[repo]

    def _forget(self, repo: str) -> None:
        self._installations.pop(repo, None)
        self._tokens.pop(repo, None)

    # --- requests ---

    async def _call(self, repo: str, method: str, path: str, answer: TypeAdapter[T], **more: Any) -> T:
        """One request with the repository's token. `more`, typed by httpx, is `json` or `params`."""
        async with _deadline(f"{method} {path}"):
            is_old = repo in self._tokens
            try:
                return await self._send(repo, method, path, answer, **more)
            except _BadCredentials:
                if not is_old:
                    raise
                # Revoked before its time (the App was reinstalled or suspended): a new one tells what is true.
                self._forget(repo)
                return await self._send(repo, method, path, answer, **more)

    async def _send(self, repo: str, method: str, path: str, answer: TypeAdapter[T], **more: Any) -> T:
        headers = {"Authorization": f"token {await self._token(repo)}"}
        return await _request(self._bearer, method, path, answer, headers=headers, **more)

    def _app_client(self) -> _KeptClient[githubkit.AppAuthStrategy]:
        """Made at the first use: a process that never talks to GitHub starts without the App's key."""
        if self._app is None:
            if not self._settings.github_app_id or self._settings.github_app_key_file is None:
                raise GitHubRefused(
                    "STAGELY_GITHUB_APP_ID or STAGELY_GITHUB_APP_KEY_FILE is not set: cannot sign in to GitHub. "
                    "Set them to the App's id and the path of its private key."
                )
            key = self._settings.secret(self._settings.github_app_key_file, "github_app_key_file")
            auth = githubkit.AppAuthStrategy(self._settings.github_app_id, key)
            self._app = _KeptClient(auth, config=self._config())
        return self._app

    def _config(self) -> githubkit.Config:
        return get_config(
            base_url=self._settings.github_api_url,
            user_agent="stagely",
            timeout=self._request_timeout_s,
            ssl_verify=self._tls,
            http_cache=False,
            auto_retry=False,
            cache_strategy=MemCacheStrategy(),
        )


class _KeptClient(githubkit.GitHub[A], Generic[A]):
    """githubkit opens a connection per call unless entered in each task's own context; this keeps one pool open."""

    _kept: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def get_async_client(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        if self._kept is None:
            self._kept = await self._create_async_client()
        yield self._kept

    async def aclose(self) -> None:
        if self._kept is not None:
            await self._kept.aclose()


class _BadCredentials(GitHubRefused):
    """401: the token is not, or no longer, valid."""


async def _request(client: _KeptClient[Any], method: str, path: str, answer: TypeAdapter[T], **more: Any) -> T:
    """One request, its answer as `answer`. `Any`: the sign-in does not matter here, and httpx types `more`."""
    what = f"{method} {path}"
    try:
        response = await client.arequest(method, path, **more)
        return answer.validate_json(response.raw_response.content)
    except RequestFailed as error:
        raise _translated(what, error) from error
    except GitHubException as error:
        cause = error.__cause__ or error
        raise GitHubUnavailable(
            f"GitHub did not answer {what} at {client.config.base_url}: {type(cause).__name__} {cause}. Try again."
        ) from error
    except ValidationError as error:
        # Never the input itself: it may hold a token.
        odd = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)[:3])
        raise GitHubUnavailable(f"GitHub answered {what} with something unexpected ({odd}). Try again.") from None


def _translated(what: str, error: RequestFailed) -> StagelyError:
    """GitHub's refusal as ours. Source: GitHub docs, "Rate limits for the REST API", "Troubleshooting the REST API"."""
    response = error.response.raw_response
    status, message = response.status_code, _message(response)
    said = f"GitHub answered {status} to {what}: {message}"
    if isinstance(error, RateLimitExceeded):
        pause_s = error.retry_after.total_seconds()
        return GitHubUnavailable(f"{said}. Rate limit; try again in {pause_s:.0f} s.", retry_after_s=pause_s)
    # The secondary limit may come without any header; its sentence is then all there is to know it by.
    if status == 429 or (status == 403 and "secondary rate limit" in message):
        return GitHubUnavailable(f"{said}. Try again in a minute.", retry_after_s=RATE_LIMIT_PAUSE_S)
    if status >= 500:
        return GitHubUnavailable(f"{said}. Try again; look at githubstatus.com if it stays.")
    if status == 404:
        return NotFound(f"{said}. It does not exist, or the GitHub App is not installed on this repository.")
    if status == 401:
        return _BadCredentials(f"{said}. Check the GitHub App's id, private key and this machine's clock.")
    return GitHubRefused(f"{said}. Check the GitHub App's permissions on this repository.")


def _message(response: httpx.Response) -> str:
    try:
        return answers.Refusal.model_validate_json(response.content).message or response.reason_phrase
    except ValidationError:
        return response.reason_phrase  # A proxy's HTML page has no message worth showing.


@asynccontextmanager
async def _deadline(what: str) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise GitHubUnavailable(f"GitHub took more than {CALL_TIMEOUT_S:.0f} s for {what}. Try again.") from error


async def _together(reads: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order, or the first error by itself: callers know our errors, not groups of them."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read) for read in reads]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def _text(path: str, file: answers.Content) -> str:
    if file.encoding != "base64":
        raise SpecInvalid(f"{path} is {file.size} bytes large; GitHub shows at most 1 MiB of a file. Make it smaller.")
    try:
        return base64.b64decode(file.content).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise SpecInvalid(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error


def _shortened(text: str) -> str:
    return text if len(text) <= DESCRIPTION_LIMIT else text[: DESCRIPTION_LIMIT - 1] + "…"
