"""The repository and its pull request, as GitHub says they are now."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.records import nudge
from activities.routes import Routes
from stagely.composefile import DEFAULT_FILES, OVERRIDE_FILES
from stagely.db.queries import comments, ledger, lives, slots, timeline
from stagely.db.queries.lives import LifeRow, NewJob
from stagely.db.queries.timeline import NewStep
from stagely.errors import SpecInvalid, StagelyError
from stagely.github import PullRequest
from stagely.ids import ALPHABET
from stagely.plan import Expose, Plan, host_label
from stagely.planner import make_plan
from stagely.spec import FILE, read_spec
from stagely.states import EnvironmentState, RunState
from workflows.messages import STARTING_ACTIONS, BuildJobRef, FailureReport, Placement, PullRequestFacts
from workflows.orders import Look, PlanRequest, PlanResult, PullRequestRef, RouteOrder

log = structlog.get_logger()

Alternatives = Callable[[str, str, str, str], Sequence[tuple[str, str]]]


class Repositories(Protocol):
    """What of GitHub is read here; see stagely.github.GitHub."""

    async def pull_request(self, repo: str, number: int) -> PullRequest: ...

    async def files_at(self, repo: str, paths: Sequence[str], sha: str) -> dict[str, str | None]: ...


def none(provider: str, region: str, size: str, arch: str) -> Sequence[tuple[str, str]]:
    """No alternatives: a cloud whose placements nobody has listed."""
    return ()


@dataclass(frozen=True, slots=True)
class SourceActivities:
    """`preview_url` is the template of URLs with `{label}`; `registry` the host:port that VMs use.

    `build_slots`: builds at once, in the whole installation. `alternatives(provider, region, size, arch)`: placements
    (region, size) that do as well when the first is sold out.
    """

    engine: AsyncEngine
    github: Repositories
    routes: Routes
    preview_url: str
    registry: str
    build_slots: int
    alternatives: Alternatives = none

    @activity.defn
    async def look(self, ref: PullRequestRef) -> Look:
        """The pull request now, and its environment: found, or made when the pull request is open.

        An environment that was stopped or reaped comes back with a new commit, or when somebody (re)opens the pull
        request, not with a label or a new title. With `ref.run_id` a new head is planned as well, and a closed one's
        routes are withdrawn. Again: the same environment, and the same run's rows.
        """
        project = await lives.project(self.engine, ref.project_id)
        pull = await self.github.pull_request(project.repo_full_name, ref.pr)
        life = await lives.living(self.engine, project.id, ref.pr)
        if life is None and pull.state == "open" and await self._may_start(ref, pull.head_sha):
            life = await lives.living_or_new(self.engine, project, ref.pr, pull.title, pull.head_sha)
        facts = PullRequestFacts(
            is_open=pull.state == "open",
            sha=pull.head_sha,
            title=pull.title,
            repo=project.repo_url,
            environment_id=life.id if life else "",
            hash=life.hash if life else "",
            provider=project.provider,
            registry=self.registry,
            repo_full_name=project.repo_full_name,
            project_id=project.id,
            pr=ref.pr,
            is_foreign=_is_foreign(pull, project.repo_full_name),
            vms=tuple(row.vm_id for row in await ledger.living_rows(self.engine, life.id)) if life else (),
        )
        is_over = bool(ref.run_id and life and not facts.is_open)
        if is_over:
            await self._withdraw(facts.environment_id)
        is_anew = bool(ref.run_id and life and facts.is_open and life.state is EnvironmentState.TERMINATING)
        planned = await self._planned(ref, facts, is_anew=is_anew)
        return Look(facts, planned, is_withdrawn=is_over, is_anew=is_anew)

    async def _withdraw(self, environment_id: str) -> None:
        """The pull request is closed: no visitor comes any more, and people see that its VMs are being destroyed."""
        await self.routes.apply(RouteOrder(environment_id, "withdrawn"))
        async with self.engine.begin() as db:
            await timeline.set_environment(db, environment_id, _ending())
            await comments.want(db, environment_id)
        await nudge(self.routes.redis, environment_id)

    async def _planned(self, ref: PullRequestRef, facts: PullRequestFacts, *, is_anew: bool) -> PlanResult | None:
        """The head's plan when it is due. GitHub's refusal of its files is left for the push to meet and to report."""
        is_due = ref.run_id and facts.is_open and facts.environment_id and (is_anew or facts.sha != ref.known_sha)
        if not is_due or (facts.is_foreign and facts.sha not in ref.approved):
            return None
        request = PlanRequest(
            run_id=ref.run_id,
            project_id=ref.project_id,
            environment_id=facts.environment_id,
            pr=ref.pr,
            sha=facts.sha,
            received_at=ref.received_at,
            title=facts.title,
            serves=ref.serves,
        )
        try:
            return await self.plan(request)
        except StagelyError as error:
            if error.retryable:
                raise
            return None

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
            return PlanResult(failure=failure, run_id=request.run_id)
        jobs = await self._write(request, life, plan, _jobs(request, plan), began)
        if not request.serves:
            await self.routes.apply(RouteOrder(life.id, "building", phase="building its images"))
        await nudge(self.routes.redis, life.id)
        log.info("push planned", environment_id=life.id, run_id=request.run_id, commit=request.sha, builds=len(jobs))
        urls = tuple(self._url(life, e) for e in plan.exposes)
        return PlanResult(plan, jobs, urls, run_id=request.run_id, placements=self._placements(plan))

    async def _may_start(self, ref: PullRequestRef, sha: str) -> bool:
        return ref.action in STARTING_ACTIONS or await lives.last_sha(self.engine, ref.project_id, ref.pr) != sha

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
        self,
        request: PlanRequest,
        life: LifeRow,
        plan: Plan | None,
        jobs: tuple[BuildJobRef, ...],
        began: float,
    ) -> tuple[BuildJobRef, ...]:
        """The run's rows in one transaction; the jobs, with the build slots that were free."""
        async with self.engine.begin() as db:
            # A push that was cancelled before its first step, or whose workflow was terminated, could not say so.
            await timeline.cancel_open_runs(db, life.id, but=request.run_id)
            await lives.begin_run(db, life.id, request.run_id, request.sha)
            await lives.add_jobs(db, life.id, request.run_id, [self._new_job(life, job) for job in jobs])
            if plan is not None:
                exposes = [self._exposed(life, e) for e in plan.exposes]
                labels = [host_label(e.label, life.hash) for e in plan.exposes]
                await lives.set_exposes(db, life.id, exposes, labels)
                await comments.want(db, life.id)
            await timeline.set_environment(db, life.id, _beginning(request, plan))
            state = RunState.COMPLETED if plan else RunState.FAILED
            webhook = NewStep("webhook", "", RunState.COMPLETED, min(request.received_at, began), began)
            planned = NewStep("plan", "", state, began, time.time())
            await timeline.put_steps(db, life.id, request.run_id, [webhook, planned])
            return await self._with_slots(db, life, request.run_id, jobs)

    async def _with_slots(
        self, db: AsyncConnection, life: LifeRow, run_id: str, jobs: tuple[BuildJobRef, ...]
    ) -> tuple[BuildJobRef, ...]:
        waiting = [job.build_id for job in jobs if not job.digest]
        if not waiting:
            return jobs
        await slots.enqueue(db, life.id, run_id, waiting)
        granted = await slots.grant(db, self.build_slots)
        return tuple(replace(job, has_slot=job.build_id in granted) for job in jobs)

    def _new_job(self, life: LifeRow, job: BuildJobRef) -> NewJob:
        repository = f"{self.registry}/{life.project.id}/{life.id}/{job.target.name}"
        artifact = f"{repository}@{job.digest}" if job.digest else ""
        return NewJob(job.build_id, job.target.name, job.arch, artifact)

    def _placements(self, plan: Plan) -> tuple[Placement, ...]:
        """Where VMs may be ordered: the plan's wish, then what its provider has that would do as well."""
        wish = plan.preview
        others = self.alternatives(wish.provider, wish.region, wish.size, wish.arch)
        return (Placement(wish.region, wish.size), *(Placement(region, size) for region, size in others))

    def _exposed(self, life: LifeRow, expose: Expose) -> dict[str, object]:
        return {
            "service": expose.service,
            "port": expose.port,
            "label": expose.label,
            "url": self._url(life, expose),
        }

    def _url(self, life: LifeRow, expose: Expose) -> str:
        return self.preview_url.format(label=host_label(expose.label, life.hash))


def _ending() -> dict[str, object]:
    """The environment's columns when its end begins."""
    return {"status": EnvironmentState.TERMINATING, "message": "destroying its VMs"}


def _beginning(request: PlanRequest, plan: Plan | None) -> dict[str, object]:
    """The environment's columns when a push begins; without a plan its state is written with the failure."""
    pushed: dict[str, object] = {"sha": request.sha, "run_id": request.run_id, "title": request.title[:300]}
    if plan is None:
        return pushed
    count = sum(len(target.arch) for target in plan.builds)
    message = f"building {count} image{'s' if count != 1 else ''}"
    return {**pushed, "status": EnvironmentState.BUILDING, "message": message, "failure": None}


def _jobs(request: PlanRequest, plan: Plan) -> tuple[BuildJobRef, ...]:
    """One job per target and architecture; ids follow from the run, so that a retried activity makes the same rows."""
    run = request.run_id.removeprefix("run-")
    pairs = [(target, arch) for target in plan.builds for arch in target.arch]
    jobs = [
        BuildJobRef(f"bld-{run}-{ALPHABET[i // 36]}{ALPHABET[i % 36]}", target, arch)
        for i, (target, arch) in enumerate(pairs)
    ]
    return tuple(replace(job, digest=request.built.get(job.key, "")) for job in jobs)


def _is_foreign(pull: PullRequest, repo_full_name: str) -> bool:
    """Whether the commit comes from another repository: a fork, or one that was deleted meanwhile."""
    return (pull.head_repo_full_name or "").lower() != repo_full_name.lower()


def _host_arch() -> str:
    """The architecture of this host: what the local provider's VMs have; other clouds default to amd64."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"
