"""A real forge on a real socket, with a clock of its own, a receiver of its webhooks and a judge of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jwt
import uvicorn
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stagely.dev.forge.app import create_app
from stagely.dev.forge.client import Delivery, ForgeClient, Pull
from stagely.dev.forge.config import ForgeConfig
from tests.stagely.dev.forge.github_spec import complaints

ADMIN = "admin-token"
SECRET = "webhook-secret"
EVENT_TIMEOUT_S = 60.0
POLL_S = 0.02
T = TypeVar("T")


@functools.cache
def app_key() -> tuple[str, str]:
    """The App's private and public key, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@dataclass(slots=True)
class Clock:
    """Real time plus what a test skips."""

    skipped_s: float = 0.0

    def now(self) -> float:
        return time.time() + self.skipped_s


@dataclass(frozen=True, slots=True)
class Hook:
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Any JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """Where webhooks go: answers `status`, and waits for `gate` before that."""

    hooks: asyncio.Queue[Hook] = field(default_factory=asyncio.Queue)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 202

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self.gate.wait()
        await self.hooks.put(Hook({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def next(self) -> Hook:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            return await self.hooks.get()


@dataclass(slots=True)
class Judged:
    """The app, and what GitHub's description finds wrong with its REST calls."""

    app: ASGIApp
    complaints: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/repos/", "/app")):
            await self.app(scope, receive, send)
            return
        sent, answered = bytearray(), bytearray()
        status = 0
        kind = b""

        async def hear() -> Message:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def say(message: Message) -> None:
            nonlocal status, kind
            status = message.get("status", status)
            kind = dict(message.get("headers", [])).get(b"content-type", kind)
            answered.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, hear, say)
        if kind.startswith(b"application/json"):
            body = json.loads(sent) if sent and status < 400 else None
            self.complaints += complaints(scope["method"], scope["path"], status, body, json.loads(answered))


@dataclass(slots=True)
class RunningForge:
    url: str
    folder: Path
    clock: Clock
    receiver: Receiver
    http: httpx.AsyncClient

    async def ask(self, work: Callable[[ForgeClient], T]) -> T:
        """What the CLI's client does, in a thread: it blocks."""

        def run() -> T:
            with ForgeClient(self.url, ADMIN) as client:
                return work(client)

        return await asyncio.to_thread(run)

    async def pull_of(self, work: Work, name: str = "shop", number: int | None = None) -> Pull:
        """Repository, pushed branch "feature", open pull request; its webhook is taken."""
        await self.ask(lambda c: c.ensure_repo(name))
        await self.ask(lambda c: c.push(f"local/{name}", work.path, work.head(), "feature"))
        pull = await self.ask(lambda c: c.open_pull(f"local/{name}", "feature", "Add a door", number=number))
        await self.receiver.next()
        return pull

    async def delivered(self, action: str) -> Delivery:
        """The newest delivery of this action, once its outcome is written down."""
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while True:
                for delivery in await self.ask(lambda c: c.deliveries()):
                    if delivery.action == action and delivery.status_code is not None:
                        return delivery
                await asyncio.sleep(POLL_S)

    async def fault(self, kind: str, **more: Any) -> None:
        """`more`: fields of Fault."""
        answer = await self.http.post("/_dev/faults", json={"kind": kind, **more})
        assert answer.status_code == 204, answer.text

    async def token(self, repositories: list[str] | None = None, **body: Any) -> str:
        """An installation token; `body` adds fields of GitHub's request."""
        sent = body if repositories is None else {"repositories": repositories, **body}
        headers = {"Authorization": f"Bearer {self.jwt()}"}
        answer = await self.http.post("/app/installations/1/access_tokens", json=sent, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def jwt(self, **claims: object) -> str:
        now = int(self.clock.now())
        usual = {"iss": "1", "iat": now - 60, "exp": now + 540}
        return jwt.encode({**usual, **claims}, app_key()[0], algorithm="RS256")


@dataclass(frozen=True, slots=True)
class Work:
    """Somebody's own git repository."""

    path: Path

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "core.fsync=none"]
        argv = ["git", "-C", str(self.path), *who, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def commit(self, path: str, text: str) -> str:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"Change {path}")
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


def make_work(path: Path) -> Work:
    work = Work(path)
    path.mkdir()
    work.git("init", "--quiet", "--initial-branch=trunk")
    work.commit("compose.yaml", "services: {}\n")
    return work


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # Signals are pytest's.


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, *, lifespan: bool = True) -> AsyncIterator[str]:
    """The app's URL while it is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_level="warning", lifespan="on" if lifespan else "off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


@contextlib.asynccontextmanager
async def running_forge(folder: Path, **changes: Any) -> AsyncIterator[RunningForge]:
    """A forge and the receiver of its webhooks. `changes`: fields of ForgeConfig."""
    clock, receiver = Clock(), Receiver()
    receiver.gate.set()
    async with serving(receiver, lifespan=False) as hooks_url:
        config = ForgeConfig(
            folder=folder,
            url="http://forge.test",
            clone_url="http://forge.test",
            webhook_url=f"{hooks_url}/v1/webhooks/github",
            app_id=1,
            app_public_key=app_key()[1],
            admin_token=ADMIN,
            webhook_secret=SECRET,
        )
        judged = Judged(create_app(replace(config, **changes), clock.now))
        headers = {"Authorization": f"token {ADMIN}"}
        async with serving(judged) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            yield RunningForge(url, folder, clock, receiver, http)
    # Out here: raised in there it would cut the servers off in mid-air.
    assert not judged.complaints, "\n".join(judged.complaints)
