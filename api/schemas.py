"""Request and response bodies of the api. The CLI and the dashboard speak these and nothing else."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
