"""The api as the CLI uses it: typed, blocking, every request with a deadline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from stagely.cli.bodies import ActionView, EnvironmentView, LogLineView, ProjectView, VmView
from stagely.cli.refusal import CommandFailed, NotAcceptable, Refused

REQUEST_TIMEOUT_S = 15.0  # Answers take milliseconds; a machine that builds may take seconds.
FOLLOW_TIMEOUT_S = 60.0  # A followed log may be silent for long; then it is asked again from the last line.

T = TypeVar("T")


class ApiClient:
    """`with ApiClient(url, token) as api`. Raises CommandFailed or NotAcceptable with the api's own words."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"}
        # trust_env off: a proxy of the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def projects(self) -> list[ProjectView]:
        return self._get("/v1/api/projects", TypeAdapter(list[ProjectView]))

    def create_project(self, slug: str, repo_url: str, repo_full_name: str) -> ProjectView:
        """The same repo_url again gives the project that is there."""
        body = {"slug": slug, "repo_url": repo_url, "repo_full_name": repo_full_name}
        return self._ask("POST", "/v1/api/projects", TypeAdapter(ProjectView), json=body)

    def environments(
        self, *, project: str = "", pr: int | None = None, gone_too: bool = False
    ) -> list[EnvironmentView]:
        """Newest first. Without `gone_too` only living ones."""
        params = {"project": project, "pr": "" if pr is None else str(pr), "all": "true" if gone_too else ""}
        chosen = {key: value for key, value in params.items() if value}
        return self._get("/v1/api/environments", TypeAdapter(list[EnvironmentView]), chosen)

    def environment(self, environment_id: str) -> EnvironmentView:
        return self._get(f"/v1/api/environments/{environment_id}", TypeAdapter(EnvironmentView))

    def act(self, environment_id: str, action: str, key: str, body: dict[str, object]) -> ActionView:
        """Ask for an action; the same key again has no second effect. Raises Refused with the workflow's words."""
        path, headers = f"/v1/api/environments/{environment_id}/{action}", {"Idempotency-Key": key}
        return self._ask("POST", path, TypeAdapter(ActionView), json=body, headers=headers)

    def vms(self, environment_id: str) -> list[VmView]:
        return self._get(f"/v1/api/environments/{environment_id}/vms", TypeAdapter(list[VmView]))

    def logs(self, environment_id: str, *, follow: bool = False) -> Iterator[LogLineView]:
        """Lines in order; with `follow` also new ones, until the api ends the stream. A cut connection resumes."""
        after = 0
        while True:
            try:
                for line in self._log_stream(environment_id, after, follow):
                    after = line.id
                    yield line
                return
            except httpx.ReadTimeout:
                if not follow:
                    raise CommandFailed(f"The api at {self._url} stopped sending the log. Try again.") from None
            except httpx.TransportError as error:
                raise self._unreachable(error) from error

    def _log_stream(self, environment_id: str, after: int, follow: bool) -> Iterator[LogLineView]:
        params = {"follow": "true" if follow else "false", "after": str(after)}
        path, adapter = f"/v1/api/environments/{environment_id}/logs", TypeAdapter(LogLineView)
        with self._http.stream("GET", path, params=params, timeout=FOLLOW_TIMEOUT_S) as answer:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            yield from (adapter.validate_json(line) for line in answer.iter_lines() if line.strip())

    def _get(self, path: str, adapter: TypeAdapter[T], params: dict[str, str] | None = None) -> T:
        return self._ask("GET", path, adapter, params=params or {})

    def _ask(self, method: str, path: str, adapter: TypeAdapter[T], **more: Any) -> T:
        """`more`, typed by httpx, is `json`, `params` or `headers`."""
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _refusal(answer)
        try:
            return adapter.validate_json(answer.content)
        except ValidationError as error:
            raise CommandFailed(
                f"The api at {self._url} answered {method} {path} in a form this stagely does not know: {error}. "
                "Are the two of the same version?"
            ) from error

    def _unreachable(self, error: httpx.TransportError) -> CommandFailed:
        return CommandFailed(
            f"The api at {self._url} does not answer ({error or type(error).__name__}). "
            "Is stagely dev running? Its log is logs/api.log in the state folder."
        )


def _refusal(answer: httpx.Response) -> CommandFailed:
    """What the api's problem JSON says, as our exception: 4xx is for the person, the rest is ours."""
    detail = _said(answer, "detail") or answer.text[:200]
    said = f"{answer.request.method} {answer.request.url.path}: {detail} ({answer.status_code})"
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return NotAcceptable(f"{said}. The token in the state folder is not this api's: is --state the right folder?")
    if answer.is_client_error:
        return Refused(f"The api refused {said}", _said(answer, "code"), detail)
    return CommandFailed(f"The api failed at {said}. Its log is logs/api.log in the state folder.")


def _said(answer: httpx.Response, key: str) -> str:
    """A field of the problem JSON; "" when the answer is none."""
    try:
        return str(json.loads(answer.content)[key])
    except (ValueError, KeyError, TypeError):
        return ""
