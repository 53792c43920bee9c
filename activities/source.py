"""The repository and its pull request, as GitHub says they are now."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.composefile import DEFAULT_FILES, OVERRIDE_FILES
from stagely.db.queries import lives, timeline
from stagely.db.queries.lives import LifeRow, NewJob
from stagely.db.queries.timeline import NewStep
from stagely.errors import SpecInvalid
from stagely.github import PullRequest
from stagely.ids import ALPHABET
from stagely.plan import Expose, Plan, host_label
from stagely.planner import make_plan
from stagely.spec import FILE, read_spec
from stagely.states import EnvironmentState, RunState
from workflows.messages import (
    BuildJobRef,
    FailureReport,
    PlanRequest,
    PlanResult,
    PullRequestFacts,
    PullRequestRef,
)

log = structlog.get_logger()

_STARTING_ACTIONS = frozenset({"opened", "reopened"})


class Repositories(Protocol):
    """What of GitHub is read here; see stagely.github.GitHub."""

    async def pull_request(self, repo: str, number: int) -> PullRequest: ...

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]: ...


@dataclass(frozen=True, slots=True)
class SourceActivities:
    """`preview_url` is the template of URLs with `{label}`; `registry` the host:port that VMs use."""

    engine: AsyncEngine
    github: Repositories
    preview_url: str
    registry: str

    @activity.defn
    async def resolve_pull_request(self, ref: PullRequestRef) -> PullRequestFacts:
        """The pull request now, and its environment: found, or made when the pull request is open.

        An environment that was stopped or reaped comes back with a new commit, or when somebody (re)opens the pull
        request, not with a label or a new title.
        """
        project = await lives.project(self.engine, ref.project_id)
        pull = await self.github.pull_request(project.repo_full_name, ref.pr)
        life = await lives.living(self.engine, project.id, ref.pr)
        if life is None and pull.state == "open" and await self._may_start(ref, pull.head_sha):
            life = await lives.living_or_new(self.engine, project, ref.pr, pull.title, pull.head_sha)
        return PullRequestFacts(
            is_open=pull.state == "open",
            sha=pull.head_sha,
            title=pull.title,
            repo=project.repo_url,
            environment_id=life.id if life else "",
            hash=life.hash if life else "",
            provider=project.provider,
            registry=self.registry,
        )

    @activity.defn
    async def plan(self, request: PlanRequest) -> PlanResult:
        """Read stagely.yaml and the Compose files at the commit; write the run, its jobs and its first steps."""
        began = time.time()
        life = await lives.life(self.engine, request.environment_id)
        try:
            plan = await self._plan(life, request.sha)
        except SpecInvalid as error:
            failure = FailureReport("plan", str(error), code=error.code)
            await self._write(request, life, None, (), began)
            return PlanResult(failure=failure)
        jobs = _jobs(request.run_id, plan)
        await self._write(request, life, plan, jobs, began)
        log.info("push planned", environment_id=life.id, run_id=request.run_id, commit=request.sha, builds=len(jobs))
        return PlanResult(plan, jobs, tuple(self._url(life, e) for e in plan.exposes))

    async def _may_start(self, ref: PullRequestRef, sha: str) -> bool:
        return ref.action in _STARTING_ACTIONS or await lives.last_sha(self.engine, ref.project_id, ref.pr) != sha

    async def _plan(self, life: LifeRow, sha: str) -> Plan:
        repo = life.project.repo_full_name
        wanted = (FILE, ".env", *DEFAULT_FILES, *OVERRIDE_FILES)
        files = await self._files(repo, wanted, sha)
        named = tuple(read_spec(files.get(FILE)).compose)
        more = [path for path in named if path not in files]
        folder = named[0].rpartition("/")[0] if named else ""
        if folder:
            more.append(f"{folder}/.env")
        if more:
            files |= await self._files(repo, more, sha)
        return make_plan(files, provider=life.project.provider, arch=_host_arch())

    async def _files(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str]:
        found = await self.github.files_at(repo, paths, sha)
        return {path: text for path, text in found.items() if text is not None}

    async def _write(
        self, request: PlanRequest, life: LifeRow, plan: Plan | None, jobs: tuple[BuildJobRef, ...], began: float
    ) -> None:
        async with self.engine.begin() as db:
            await lives.begin_run(db, life.id, request.run_id, request.sha)
            await lives.add_jobs(db, life.id, request.run_id, [NewJob(j.build_id, j.target.name, j.arch) for j in jobs])
            if plan is not None:
                exposes = [self._exposed(life, e) for e in plan.exposes]
                labels = [host_label(e.label, life.hash) for e in plan.exposes]
                await lives.set_exposes(db, life.id, exposes, labels)
            await timeline.set_environment(db, life.id, _beginning(request, plan))
            state = RunState.COMPLETED if plan else RunState.FAILED
            webhook = NewStep("webhook", "", RunState.COMPLETED, min(request.received_at, began), began)
            planned = NewStep("plan", "", state, began, time.time())
            await timeline.put_steps(db, life.id, request.run_id, [webhook, planned])

    def _exposed(self, life: LifeRow, expose: Expose) -> dict[str, object]:
        return {
            "service": expose.service,
            "port": expose.port,
            "label": expose.label,
            "url": self._url(life, expose),
        }

    def _url(self, life: LifeRow, expose: Expose) -> str:
        return self.preview_url.format(label=host_label(expose.label, life.hash))


def _beginning(request: PlanRequest, plan: Plan | None) -> dict[str, object]:
    """The environment's columns when a push begins; without a plan its state is written with the failure."""
    pushed: dict[str, object] = {"sha": request.sha, "run_id": request.run_id, "title": request.title[:300]}
    if plan is None:
        return pushed
    count = sum(len(target.arch) for target in plan.builds)
    message = f"building {count} image{'s' if count != 1 else ''}"
    return {**pushed, "status": EnvironmentState.BUILDING, "message": message, "failure": None}


def _jobs(run_id: str, plan: Plan) -> tuple[BuildJobRef, ...]:
    """One job per target and architecture; ids follow from the run, so that a retried activity makes the same rows."""
    pairs = [(target, arch) for target in plan.builds for arch in target.arch]
    return tuple(
        BuildJobRef(f"bld-{run_id.removeprefix('run-')}-{ALPHABET[i // 36]}{ALPHABET[i % 36]}", target, arch)
        for i, (target, arch) in enumerate(pairs)
    )


def _host_arch() -> str:
    """The architecture of this host: what the local provider's VMs have; other clouds default to amd64."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"
