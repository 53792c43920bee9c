"""JSON over HTTP as DNS providers speak it: a bearer token, a deadline per call, and their answers as our errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

from providers.errors import CredentialsRejected, DnsRejected, ProviderUnavailable
from stagely.retry_after import seconds_of

CALL_LIMIT_S = 20.0  # Longer than an answer is worth waiting for: the activity asks again.
_PASSING = (HTTPStatus.CONFLICT, HTTPStatus.LOCKED, HTTPStatus.TOO_MANY_REQUESTS)  # Somebody else is changing the zone.

Json = Any  # Any JSON value.


class RestApi:
    """One account of `provider`. Nothing is sent twice: the caller looks first, and asks again."""

    def __init__(self, provider: str, url: str, token: str) -> None:
        self._provider = provider
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=CALL_LIMIT_S
        )

    async def call(self, method: str, path: str, body: Json = None, *, query: dict[str, str] | None = None) -> Json:
        """The answer's JSON; None when there is no such thing (404), {} when the answer is empty.

        Raises CredentialsRejected, DnsRejected or ProviderUnavailable.
        """
        try:
            answer = await self._client.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"{self._provider} did not answer {method} {path}: {error!r}") from error
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if not answer.is_success:
            raise self._refusal(f"{method} {path}", answer)
        return answer.json() if answer.content else {}

    async def aclose(self) -> None:
        await self._client.aclose()

    def _refusal(self, call: str, answer: httpx.Response) -> CredentialsRejected | DnsRejected | ProviderUnavailable:
        what = f"{self._provider} answered {call} with {answer.status_code}: {answer.text[:300]}"
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return CredentialsRejected(f"{what}. Put a token that may write DNS where STAGELY_DNS_TOKEN_FILE says.")
        if answer.is_server_error or answer.status_code in _PASSING:
            return ProviderUnavailable(what, retry_after_s=seconds_of(answer.headers.get("Retry-After")))
        return DnsRejected(what)
