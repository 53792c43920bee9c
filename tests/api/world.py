"""Helpers of the api's tests: a running gateway or api, agents' identities, workflows that only collect signals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from pydantic import TypeAdapter
from temporalio.client import Client, WorkflowHandle

from api.gateway.server import Gateway
from api.server import Api
from stagely.errors import GitHubRefused, GitHubUnavailable
from stagely.ids import mint
from stagely.settings import Settings
from stagely.tokens import EnrolmentTokens
from tests.api.wire import DEADLINE_S, Identity
from tests.encryption import CONVERTER
from workflows.messages import AgentEvent, PullRequestEvent

KEY = "5a" * 32
WEBHOOK_SECRET = "a-webhook-secret"
Event = TypeAdapter(AgentEvent)

OpenGateway = Callable[..., AbstractAsyncContextManager["Running"]]


class Repositories:
    """GitHub as the gateway needs it. `is_away` makes it fail as an outage does, `is_refusing` as a lost right does."""

    def __init__(self) -> None:
        self.is_away = False
        self.is_refusing = False
        self.was_asked = asyncio.Event()

    async def clone_token(self, repo_full_name: str) -> str:
        self.was_asked.set()
        if self.is_away:
            raise GitHubUnavailable("GitHub did not answer")
        if self.is_refusing:
            raise GitHubRefused("this installation may not read the repository")
        return f"token-for-{repo_full_name}"


class Clock:
    """Seconds that pass by themselves, and more of them when told."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._is_broken = False

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds

    def break_once(self) -> None:
        """The next one who asks for the time gets an error that nobody expects."""
        self._is_broken = True

    def __call__(self) -> float:
        if self._is_broken:
            self._is_broken = False
            raise ClockBroken
        return time.monotonic() + self._ahead_s


class ClockBroken(Exception):
    """Stands for any mistake of ours inside a loop."""


class Running:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @property
    def address(self) -> tuple[str, int]:
        return self.gateway.addresses[0]


@asynccontextmanager
async def run_api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    api = Api(settings)
    async with asyncio.timeout(DEADLINE_S * 5), asyncio.TaskGroup() as group:
        group.create_task(api.run())
        await api.listening.wait()
        host, port = api.addresses[0]
        try:
            async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=DEADLINE_S) as client:
                yield client
        finally:
            api.stop()


def identity(vm_id: str, *, signed_for: str = "", issued_at: float = 0.0) -> Identity:
    """An agent that holds a token of `signed_for`, by default of its own VM."""
    token = EnrolmentTokens(KEY).mint(signed_for or vm_id, issued_at or time.time())
    return Identity(vm_id, token)


async def start_owner(client: Client) -> WorkflowHandle[object, object]:
    """A workflow that takes signals and does nothing: no worker knows it."""
    return await client.start_workflow("Owner", id=mint("owner"), task_queue="nobody")


async def signals(handle: WorkflowHandle[object, object]) -> list[AgentEvent]:
    """The agent events that this workflow was sent."""
    return [Event.validate_python(value) for value in await _signal_values(handle, "agent_event")]


async def pull_request_events(handle: WorkflowHandle[object, object]) -> list[PullRequestEvent]:
    values = await _signal_values(handle, "pull_request_event")
    return [TypeAdapter(PullRequestEvent).validate_python(value) for value in values]


async def _signal_values(handle: WorkflowHandle[object, object], name: str) -> list[object]:
    found: list[object] = []
    async for event in handle.fetch_history_events():
        attributes = event.workflow_execution_signaled_event_attributes
        if event.HasField("workflow_execution_signaled_event_attributes") and attributes.signal_name == name:
            found += await CONVERTER.decode(attributes.input.payloads)
    return found


async def eventually(claim: Callable[[], Awaitable[bool]], limit_s: float = DEADLINE_S) -> None:
    """Wait until the claim holds. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while True:
            if await claim():
                return
            await asyncio.sleep(0.02)
