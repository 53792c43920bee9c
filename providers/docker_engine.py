"""The Docker Engine's API over its Unix socket: one attempt per call, a deadline on each, errors translated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from providers.errors import ProviderError, ProviderUnavailable, VmRejected

CREATE_S = 60.0  # A create unpacks nothing, but a busy disk was seen to hold one for 12 s.
START_S = 60.0
READ_S = 15.0  # Lists come from the Engine's memory.
DESTROY_S = 90.0  # A VM with many containers inside dies with all its mounts: up to 10 s were seen under load.


@dataclass(frozen=True, slots=True)
class Answer:
    """`message` is the Engine's own sentence for an error, "" otherwise."""

    status: int
    content: bytes
    message: str = ""


class Engine:
    """One Engine. Paths carry no version, so the Engine's newest one is spoken: 20.10 to 29 share what is used here."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        # verify=False: no TLS is spoken over a Unix socket, and loading the certificates would cost 30 ms each time.
        transport = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://docker", timeout=None, trust_env=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        deadline_s: float,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """The Engine's answer, whatever its status below 500.

        Raises ProviderUnavailable when there is none in time or the Engine failed: the effect may have happened.
        """
        try:
            async with asyncio.timeout(deadline_s):
                response = await self._client.request(method, path, params=params, json=body)
        except TimeoutError as error:
            raise ProviderUnavailable(
                f"the Docker Engine did not answer {method} {path} within {deadline_s:.0f} s. Is the host overloaded?"
            ) from error
        except httpx.TransportError as error:
            raise ProviderUnavailable(
                f"the Docker Engine does not answer at {self._socket_path} ({error}). Start it: make setup"
            ) from error
        message = "" if response.is_success else _message(response)
        if response.status_code >= 500:
            raise ProviderUnavailable(f"the Docker Engine failed at {method} {path}: {message}")
        return Answer(response.status_code, response.content, message)

    async def aclose(self) -> None:
        await self._client.aclose()


def refused(what: str, answer: Answer) -> ProviderError:
    """An answer below 500 that nobody expected: the order is wrong, and trying again would not help."""
    return VmRejected(f"the Docker Engine refused to {what}: {answer.message} ({answer.status})")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or "no reason given"
