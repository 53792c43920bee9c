"""An api that speaks api/schemas.py over a real socket and plays a story: each look is one frame on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from api.schemas import (
    ActionAnswer,
    BuildJob,
    Environment,
    Failure,
    LogLine,
    Problem,
    Project,
    ProjectCreate,
    Run,
    Step,
)

TOKEN = "the-token-of-this-state"
RUN_ID = "run-1"
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Frame:
    """What one look at the environment shows."""

    state: str
    message: str = ""
    steps: tuple[Step, ...] = ()
    urls: dict[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    run_id: str = RUN_ID
    builds: tuple[BuildJob, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """An action that somebody asked for."""

    action: str
    key: str
    body: dict[str, Any]


def step(
    name: str, subject: str = "", *, state: str = "completed", seconds: float | None = 1.0, run_id: str = RUN_ID
) -> Step:
    return Step(run_id=run_id, name=name, subject=subject, state=state, started_at=1.0, seconds=seconds)


READY = (
    Frame("queued", "waiting"),
    Frame("building", "building 1 image", (step("build", "web", state="running", seconds=None),)),
    Frame("ready", "ready", (step("build", "web", seconds=3.2),), {"web": "http://abc.localhost:1"}),
)
AGAIN = (
    Frame("building", "building 1 image", (step("build", "web", state="running", run_id="run-2"),), run_id="run-2"),
    Frame("ready", "ready", (step("build", "web", run_id="run-2"),), {"web": "http://abc.localhost:1"}, run_id="run-2"),
)
CLOSING = (Frame("terminating", "destroying its VMs"), Frame("terminated", "gone"))


class FakeApi:
    """`story` is played after a pull request is opened or pushed to, `CLOSING` after it is closed.

    Actions are answered as `answers` says in turn, then all with `done`; `again` is played after each of them that is
    taken and begins a push, after one more look at what was there before.
    """

    def __init__(self) -> None:
        self.story: Sequence[Frame] = READY
        self.projects: list[Project] = []
        self.environments: dict[str, Environment] = {}
        self.log_lines: list[LogLine] = []
        self.actions: list[str] = []
        self.is_deaf = False
        self.asked: list[Asked] = []
        self.answers: list[ActionAnswer | Problem] = []
        self.again: Sequence[Frame] = AGAIN
        self.looked_at = threading.Event()
        self._frames: dict[str, list[Frame]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL_S})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for_port(self, port: int, timeout_s: float) -> None:
        """Return when somebody listens there."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                threading.Event().wait(POLL_S)

    def take_webhook(self, body: dict[str, Any]) -> None:
        """`body` is GitHub's JSON."""
        action, repo = str(body["action"]), str(body["repository"]["full_name"])
        self.actions.append(action)
        if self.is_deaf:
            return
        project = next(p for p in self.projects if p.repo_full_name == repo)
        number, sha = int(body["number"]), str(body["pull_request"]["head"]["sha"])
        key = f"env-{project.slug}-{number}"
        self._frames[key] = list(CLOSING if action == "closed" else self.story)
        self.environments[key] = _environment(key, project, number, sha, self._frames[key][0])

    def create_project(self, asked: ProjectCreate) -> Project:
        found = next((p for p in self.projects if p.repo_url == asked.repo_url), None)
        if found is None:
            found = Project(id=f"prj-{asked.slug}", **asked.model_dump())
            self.projects.append(found)
        return found

    def list_environments(self, query: dict[str, list[str]]) -> list[Environment]:
        found = list(self.environments.values())
        if "all" not in query:
            found = [e for e in found if e.state != "terminated"]
        for key, attribute in (("project", "project_id"), ("pr", "pr")):
            if key in query:
                found = [e for e in found if str(getattr(e, attribute)) == query[key][0]]
        return found

    def act(self, key: str, asked: Asked) -> ActionAnswer | Problem:
        self.asked.append(asked)
        expires_at = time.time() + 12.5 * 3600
        done = ActionAnswer(update_id=asked.key, outcome="done", expires_at=expires_at, is_pinned=asked.action == "pin")
        answer = self.answers.pop(0) if self.answers else done
        if isinstance(answer, ActionAnswer) and answer.outcome != "unanswered":
            if asked.action == "stop":
                self._frames[key] = list(CLOSING)
            elif asked.action in ("redeploy", "retry", "approve"):
                self._frames[key] = [*self._frames[key][-1:], *self.again]
        return answer

    def look(self, key: str) -> Environment:
        """The environment one frame on."""
        self.looked_at.set()
        frames, known = self._frames[key], self.environments[key]
        frame = frames.pop(0) if len(frames) > 1 else frames[0]
        fields = {"state": frame.state, "message": frame.message, "steps": list(frame.steps), "urls": frame.urls}
        phases = {s.name: s.seconds for s in frame.steps if s.seconds is not None}
        run = Run(id=frame.run_id, number=1, sha=known.commit, state="running", builds=list(frame.builds))
        since = known.since if frame.state == known.state else known.since + 1
        news = {**fields, "failure": frame.failure, "phases": phases, "run": run, "since": since}
        self.environments[key] = known.model_copy(update=news)
        return self.environments[key]


def _environment(key: str, project: Project, number: int, sha: str, frame: Frame) -> Environment:
    return Environment(
        id=key,
        project_id=project.id,
        project=project.slug,
        repo=project.repo_full_name,
        pr=number,
        title="First",
        state=frame.state,
        message=frame.message,
        commit=sha,
        since=1.0,
        created_at=1.0,
        urls={},
        run=Run(id=RUN_ID, number=1, sha=sha, state="running"),
    )


def _handler_of(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/webhook":
                api.take_webhook(body)
                self._answer(HTTPStatus.ACCEPTED, [])
            elif not self._is_let_in():
                return
            elif self.path.startswith("/v1/api/environments/"):
                key, action = self.path.split("/")[-2:]
                answer = api.act(key, Asked(action, self.headers["Idempotency-Key"], body))
                self._answer(HTTPStatus(answer.status if isinstance(answer, Problem) else HTTPStatus.OK), answer)
            else:
                self._answer(HTTPStatus.CREATED, api.create_project(ProjectCreate.model_validate(body)))

        def do_GET(self) -> None:
            if not self._is_let_in():
                return
            parts = urlsplit(self.path)
            match parts.path.removeprefix("/v1/api/").split("/"):
                case ["projects"]:
                    self._answer(HTTPStatus.OK, api.projects)
                case ["environments"]:
                    self._answer(HTTPStatus.OK, api.list_environments(parse_qs(parts.query)))
                case ["environments", key]:
                    self._answer(HTTPStatus.OK, api.look(key))
                case ["environments", _, "logs"]:
                    self._send(HTTPStatus.OK, "".join(line.model_dump_json() + "\n" for line in api.log_lines))
                case _:
                    self._problem(HTTPStatus.NOT_FOUND, "no such page")

        def _is_let_in(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self._problem(HTTPStatus.UNAUTHORIZED, "this token is not known")
            return False

        def _problem(self, status: HTTPStatus, detail: str) -> None:
            self._answer(status, Problem(title=status.phrase, status=status, detail=detail, code="test"))

        def _answer(self, status: HTTPStatus, body: BaseModel | Sequence[BaseModel]) -> None:
            if isinstance(body, BaseModel):
                self._send(status, body.model_dump_json())
            else:
                self._send(status, json.dumps([one.model_dump(mode="json") for one in body]))

        def _send(self, status: HTTPStatus, text: str) -> None:
            raw = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: a failing test shows the command's own output."""

    return Handler
