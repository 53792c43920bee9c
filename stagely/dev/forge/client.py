"""What `stagely up`, `push` and `close` ask of the local forge, as a person with its admin token would."""

from __future__ import annotations

import base64
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from stagely.errors import Conflict, GitHubRefused, GitHubUnavailable, NotFound, StagelyError, Unauthorized

REQUEST_TIMEOUT_S = 15.0  # The forge answers within milliseconds; a loaded machine may take seconds.
PUSH_TIMEOUT_S = 600.0  # A large repository over loopback.
DEFAULT_BASE = "main"

T = TypeVar("T")


class Repository(BaseModel):
    full_name: str
    html_url: str
    clone_url: str


class Pull(BaseModel):
    """`state` is open or closed. `html_url` is a page for people."""

    class Branch(BaseModel):
        ref: str
        sha: str

    number: int
    state: str
    title: str
    html_url: str
    head: Branch


class Comment(BaseModel):
    id: int
    body: str
    created_at: str
    updated_at: str


class Status(BaseModel):
    state: str
    context: str
    description: str | None
    target_url: str | None


class Delivery(BaseModel):
    """One attempt to deliver a webhook. `status_code` 0: nobody answered, `error` says why; None: not tried yet."""

    id: int
    guid: str
    event: str
    action: str
    redelivery: bool
    status_code: int | None
    error: str
    duration_s: float


class ForgeClient:
    """Blocking; `with ForgeClient(url, token) as forge`. Repositories are full names: "local/guestbook".

    Raises, from every method:
        GitHubUnavailable: the forge does not answer.
        Unauthorized: the token is not this forge's.
        NotFound, Conflict, GitHubRefused: what GitHub's 404, 422 and other 4xx say.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        headers = {"Authorization": f"token {token}"}
        # trust_env off: a proxy of the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def ensure_repo(self, name: str) -> Repository:
        """The repository `local/<name>`, made when it is not there."""
        return self._ask("POST", "/_dev/repos", TypeAdapter(Repository), json={"name": name})

    def push(self, repo: str, path: Path, sha: str, branch: str) -> None:
        """Make `branch` point at `sha` of the local repository at `path`, as `git push --force` does.

        The person's own hooks do not run. An open pull request of that branch gets the commit at once.
        Raises GitHubRefused with git's words when git fails.
        """
        target = f"{self._url}/{repo}.git"
        argv = [
            "git",
            "-C",
            str(path),
            "push",
            "--quiet",
            "--force",
            "--no-verify",
            target,
            f"{sha}:refs/heads/{branch}",
        ]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=PUSH_TIMEOUT_S, env=self._git_environment(), check=False
            )
        except subprocess.TimeoutExpired as error:
            raise GitHubUnavailable(f"git push of {sha[:12]} to {target} took over {PUSH_TIMEOUT_S:.0f} s.") from error
        if done.returncode != 0:
            raise GitHubRefused(f"git push of {sha[:12]} to {target} failed: {done.stderr.strip()[-1000:]}")

    def open_pull(
        self, repo: str, branch: str, title: str, *, number: int | None = None, base: str = DEFAULT_BASE
    ) -> Pull:
        """Open a pull request of `branch`; `number` None takes the next free one.

        Raises Conflict when the branch has an open one already, or when the number is taken.
        """
        headers = {"X-Stagely-Pull-Number": str(number)} if number is not None else {}
        body = {"title": title, "head": branch, "base": base}
        return self._ask("POST", f"/repos/{repo}/pulls", TypeAdapter(Pull), json=body, headers=headers)

    def update_pull(self, repo: str, number: int, state: str) -> Pull:
        """Close ("closed") or reopen ("open") a pull request. In that state already: nothing happens."""
        return self._ask("PATCH", f"/repos/{repo}/pulls/{number}", TypeAdapter(Pull), json={"state": state})

    def pull(self, repo: str, number: int) -> Pull:
        return self._ask("GET", f"/repos/{repo}/pulls/{number}", TypeAdapter(Pull))

    def pulls(self, repo: str, *, branch: str | None = None, state: str = "all") -> list[Pull]:
        """Newest first, at most 100. `state`: open, closed or all."""
        params = {"state": state, "per_page": "100"}
        if branch is not None:
            params["head"] = f"{repo.partition('/')[0]}:{branch}"
        return self._ask("GET", f"/repos/{repo}/pulls", TypeAdapter(list[Pull]), params=params)

    def comments(self, repo: str, number: int) -> list[Comment]:
        """Oldest first, at most 100."""
        path = f"/repos/{repo}/issues/{number}/comments"
        return self._ask("GET", path, TypeAdapter(list[Comment]), params={"per_page": "100"})

    def statuses(self, repo: str, sha: str) -> list[Status]:
        """Newest first, at most 100."""
        path = f"/repos/{repo}/commits/{quote(sha)}/statuses"
        return self._ask("GET", path, TypeAdapter(list[Status]), params={"per_page": "100"})

    def deliveries(self) -> list[Delivery]:
        """The last 100 attempts to deliver a webhook, newest first."""
        return self._ask("GET", "/_dev/deliveries", TypeAdapter(list[Delivery]))

    def redeliver(self, delivery_id: int) -> Delivery:
        """Send the same body with the same GUID once more. Returns the new attempt, not yet tried."""
        return self._ask("POST", f"/_dev/deliveries/{delivery_id}/attempts", TypeAdapter(Delivery))

    def _ask(self, method: str, path: str, answer: TypeAdapter[T], **more: Any) -> T:
        """`more`, typed by httpx, is `json`, `params` or `headers`."""
        try:
            response = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise GitHubUnavailable(
                f"The local forge at {self._url} does not answer ({error}). Is stagely dev running? Its log: forge.log"
            ) from error
        if response.is_error:
            raise _refusal(response)
        return answer.validate_json(response.content)

    def _git_environment(self) -> dict[str, str]:
        """The token goes to git by environment: arguments are shown to everybody by `ps`."""
        login = base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
        config = {"http.extraHeader": f"Authorization: Basic {login}", "http.proxy": "", "credential.helper": ""}
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": str(len(config))}
        for i, (key, value) in enumerate(config.items()):
            env |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
        return env


@dataclass(frozen=True, slots=True)
class _Error:
    message: str = ""
    errors: tuple[dict[str, Any], ...] = ()  # GitHub's own entries: any JSON.


def _refusal(response: httpx.Response) -> StagelyError:
    request = f"{response.request.method} {response.request.url.path}"
    try:
        body = TypeAdapter(_Error).validate_json(response.content)
    except ValidationError:
        body = _Error(response.text[:200])
    details = "; ".join(str(e.get("message", "")) for e in body.errors)
    said = f"The local forge answered {response.status_code} to {request}: {body.message} {details}".strip()
    match response.status_code:
        case 401:
            return Unauthorized(f"{said}. Use the token in the state folder of this stagely dev (--state DIR).")
        case 404:
            return NotFound(said)
        case 422:
            return Conflict(said)
        case status if status >= 500:
            return GitHubUnavailable(f"{said}. Its log: forge.log")
    return GitHubRefused(said)
