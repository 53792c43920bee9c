"""Request and response bodies of the api. The CLI and the dashboard speak these and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stagely.spec import Ttl


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectCreate(Body):
    """`POST /v1/api/projects`. The same repo_url again answers the project that is there (200 instead of 201)."""

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    repo_url: str
    repo_full_name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")


class Project(Body):
    id: str
    slug: str
    repo_url: str
    repo_full_name: str


class Service(Body):
    name: str
    status: str
    health: str = ""
    exit_code: int | None = None
    url: str = ""


class Failure(Body):
    step: str
    message: str
    subject: str = ""
    exit_code: int | None = None
    tail: list[str] = []
    code: str = ""


class Step(Body):
    """Times are Unix seconds; `seconds` is None while it runs."""

    run_id: str
    name: str
    subject: str
    state: str
    started_at: float
    seconds: float | None = None
    detail: str = ""


class BuildJob(Body):
    name: str
    arch: str
    state: str
    vm_id: str = ""
    position: int | None = None


class Run(Body):
    id: str
    number: int
    sha: str
    state: str
    builds: list[BuildJob] = []


class Environment(Body):
    """`GET /v1/api/environments/{id}`, and an element of the list (`GET /v1/api/environments?project=&pr=&all=`).

    `urls` maps service to URL, the main one first. `phases`: seconds by step name of the latest run (sum over the
    longest of parallel subjects). `commit` is the head that is deployed or being deployed.
    """

    id: str
    project_id: str
    project: str
    repo: str
    pr: int
    title: str
    state: str
    message: str
    commit: str
    since: float
    created_at: float
    urls: dict[str, str]
    services: list[Service] = []
    failure: Failure | None = None
    run: Run | None = None
    steps: list[Step] = []
    phases: dict[str, float] = {}
    comment_url: str = ""
    expires_at: float | None = None
    is_pinned: bool = False


class Extension(Body):
    """`POST /v1/api/environments/{id}/extend`: by how much, as `seconds` or as a `duration` such as "12h"."""

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    duration: Ttl | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.seconds is None) == (self.duration is None):
            raise ValueError('give either "seconds" or "duration", such as {"duration": "12h"}')
        return self

    @property
    def length_s(self) -> float:
        return self.seconds or self.duration or 0.0


class Pinning(Body):
    """`POST /v1/api/environments/{id}/pin`; `unpin` is the same with `pinned` false."""

    pinned: bool = True


class Approval(Body):
    """`POST /v1/api/environments/{id}/approve`: the commit that was looked at."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")


class ActionAnswer(Body):
    """What became of an action. `update_id` is its Idempotency-Key: the same one again has no second effect.

    `done` (200): as `expires_at` and `is_pinned` say. `unanswered` (202): no worker took it in time, it may still be
    done; ask again with the same key. `started` (202): of an environment that ended; if its pull request is open, a
    new one begins.
    """

    update_id: str
    outcome: Literal["done", "unanswered", "started"]
    expires_at: float | None = None
    is_pinned: bool = False


class LogLine(Body):
    """One NDJSON line of `GET /v1/api/environments/{id}/logs?follow=&after=&run=&stream=`.

    `data` is one or more whole lines; `id` grows within an environment and resumes with `after`.
    """

    id: int
    run_id: str
    stream: str
    at: float
    data: str


class Vm(Body):
    """`GET /v1/api/environments/{id}/vms`: the ledger's rows of one environment."""

    id: str
    role: str
    job: str
    state: str
    address: str = ""
    created_at: float


class Problem(Body):
    """RFC 9457 problem JSON (application/problem+json); `code` is stable."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
