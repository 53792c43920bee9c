"""One push of an environment: plan, build, deploy, route.

A coroutine of EnvironmentWorkflow; the next push cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.source import SourceActivities

from stagely.ids import mint
from stagely.plan import DEFAULT_TTL_S, Plan
from stagely.states import EnvironmentState, RunState, VmRole
from workflows.ending import record as write
from workflows.failures import reason, report_of
from workflows.fanout import fanout, protected, unless
from workflows.leased_vm import LeasedVm, VmLost
from workflows.lifetime import Lifetime
from workflows.messages import (
    AgentEvent,
    BuiltImage,
    CommandOrder,
    DeployOrder,
    EnvironmentInput,
    FailureReport,
    PipelineInput,
    PipelineResult,
    Placement,
    PullRequestFacts,
    VmLeaseInput,
    pipeline_workflow_id,
)
from workflows.options import DEPLOY_ATTEMPTS, GITHUB, MARGINS
from workflows.orders import PlanRequest, PlanResult, Record, RouteOrder, Step
from workflows.pipeline import PipelineWorkflow
from workflows.placing import left_after, placements_of
from workflows.preview import Preview
from workflows.status import describe_environment, mark, pipeline_attributes
from workflows.steps import steps_of

_STEPS = ("clone", "pull", "up", "health")


class PushFailed(Exception):
    """This push ends here; `report` says why. Never leaves this file."""

    def __init__(self, report: FailureReport) -> None:
        super().__init__(report.message)
        self.report = report


@dataclass(slots=True)
class Push:
    """Brings one commit to the preview. Ends with the environment ready or failed, recorded, routed and commented.

    `planned`: the plan, when a look at the pull request made it already. `built`: digests of an earlier run of this
    commit, then of this one too. `is_superseded` is set before the task is cancelled: a cancel that comes while a
    child is starting is turned into one of the child by the SDK and swallowed here (seen), so the flag is looked at
    after such an await.
    """

    order: EnvironmentInput
    facts: PullRequestFacts
    preview: Preview
    lifetime: Lifetime
    received_at: float
    run_id: str
    planned: PlanResult | None = None
    built: dict[str, str] = field(default_factory=dict)
    is_superseded: bool = False
    has_failed: bool = False
    _ttl_s: float = 0.0
    _steps: list[Step] = field(default_factory=list)

    async def run(self) -> None:
        """Raises CancelledError when it is superseded, and nothing else but bugs."""
        self._ttl_s = self._limited(DEFAULT_TTL_S)
        try:
            report = await self._failure()
            self._go_on()
            if report is not None:
                await self._fail(report)
        except (asyncio.CancelledError, FailureError) as error:
            if not is_cancelled_exception(error):
                raise
            await protected(self._record(Record(self._environment, run_id=self.run_id, run_state=RunState.CANCELLED)))
            raise asyncio.CancelledError from error

    async def _failure(self) -> FailureReport | None:
        """Deploy the commit; why it failed, or None when the preview is ready."""
        try:
            await self._deploy_commit()
        except (PushFailed, VmLost) as error:
            return error.report
        except (ActivityError, ChildWorkflowError) as error:
            if is_cancelled_exception(error):
                raise
            return report_of("deploy", error)
        return None

    @property
    def _environment(self) -> str:
        return self.facts.environment_id

    def _go_on(self) -> None:
        if self.is_superseded or workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError

    async def _deploy_commit(self) -> None:
        planned = self.planned or await self._plan()
        if planned.failure is not None:
            raise PushFailed(planned.failure)
        plan = planned.plan
        assert plan is not None
        self._ttl_s = self._limited(plan.preview.ttl_s)
        self._show_building()
        images = await self._build_beside_boot(planned, plan)
        await self._deploy_on_some_vm(plan, planned, images)

    def _limited(self, ttl_s: float) -> float:
        return min(ttl_s, self.order.timings.ttl_limit_s)

    async def _deploy_on_some_vm(self, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...]) -> None:
        """A VM that is lost meanwhile is replaced once, a sold out placement gives way to the next."""
        attempt = losses = 0
        while True:
            attempt += 1
            await self._ensure_preview(planned, plan)
            try:
                await self._deploy(plan, planned, images, attempt)
                return
            except VmLost as error:
                self._go_on()
                losses += not error.is_sold_out
                if losses == DEPLOY_ATTEMPTS or not (error.may_retry or error.is_sold_out):
                    raise
                self.preview.serves = False

    async def _build_beside_boot(self, planned: PlanResult, plan: Plan) -> tuple[BuiltImage, ...]:
        """The preview VM boots while images are built: both are ordered in one workflow task."""
        _, images = await fanout([self._ensure_preview(planned, plan), self._build(planned, plan)])
        return images or ()

    async def _plan(self) -> PlanResult:
        request = PlanRequest(
            run_id=self.run_id,
            project_id=self.order.project_id,
            environment_id=self._environment,
            pr=self.order.pr,
            sha=self.facts.sha,
            received_at=self.received_at,
            title=self.facts.title,
            built=self.built,
            serves=self.preview.serves,
        )
        try:
            return await workflow.execute_activity_method(
                SourceActivities.plan, request, summary=f"plan {self.facts.sha[:12]}", **GITHUB
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            raise PushFailed(report_of("plan", error)) from error

    async def _ensure_preview(self, planned: PlanResult, plan: Plan) -> None:
        """Keep the preview VM unless it is lost or was ordered otherwise; a sold out placement gives way to the next.

        Raises VmLost when every placement is sold out.
        """
        wish = plan.preview
        spec = (wish.provider, wish.region, wish.size, wish.arch)
        placements = placements_of(planned, plan)
        if self.preview.vm is not None and (self.preview.is_lost or self.preview.spec != spec):
            placements = left_after(placements, self.preview.vm) if self.preview.spec == spec else placements
            await self.preview.drop()
        if self.preview.vm is not None:
            return
        vm = LeasedVm(self._preview_order(plan, placements[0]))
        self.preview.vm, self.preview.spec = vm, spec
        self.lifetime.vm_expires_at = workflow.time() + self._lease_s()
        await vm.open(ParentClosePolicy.ABANDON)
        if self.is_superseded:
            # The swallowed cancel went to its lease, which ends; the next push orders another VM.
            vm.lost = FailureReport("vm", "its push was superseded while it was being ordered")
        self._go_on()

    def _preview_order(self, plan: Plan, placement: Placement) -> VmLeaseInput:
        vm_id = mint("vm", choice=workflow.random().choice)
        wish = Placement(plan.preview.region, plan.preview.size)
        prepare = CommandOrder(
            command_id=f"{self.run_id}/prepare/{vm_id}",
            vm_id=vm_id,
            kind="prepare",
            environment_id=self._environment,
            run_id=self.run_id,
            pull=plan.pull,
        )
        return VmLeaseInput(
            vm_id=vm_id,
            role=VmRole.PREVIEW,
            project_id=self.order.project_id,
            environment_id=self._environment,
            owner_workflow_id=workflow.info().workflow_id,
            provider=plan.preview.provider,
            # The environment's own timer ends it at its time to live; this deadline is for when nobody does.
            expires_in_s=self._lease_s(),
            create_limit_s=self.order.timings.create_limit_s,
            region=placement.region,
            size=placement.size,
            arch=plan.preview.arch,
            run_id=self.run_id,
            command=prepare if plan.pull else None,
            wish=None if placement == wish else wish,
        )

    def _lease_s(self) -> float:
        return self._ttl_s + self.order.timings.lease_margin_s

    async def _build(self, planned: PlanResult, plan: Plan) -> tuple[BuiltImage, ...]:
        """The images of every target, from the pipeline's own workflow. Raises PushFailed."""
        order = PipelineInput(
            run_id=self.run_id,
            project_id=self.order.project_id,
            environment_id=self._environment,
            repo=self.facts.repo,
            sha=self.facts.sha,
            jobs=planned.jobs,
            provider=plan.preview.provider,
            registry=self.facts.registry,
            urls=_url_arguments(plan, planned.urls),
            build_timeout_s=plan.build_timeout_s,
            keep_going=plan.keep_going,
            timings=self.order.timings,
            placements=planned.placements,
        )
        try:
            result: PipelineResult = await workflow.execute_child_workflow(
                PipelineWorkflow.run,
                order,
                id=pipeline_workflow_id(self.run_id),
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"commit {self.facts.sha[:12]}",
                search_attributes=pipeline_attributes(order),
            )
        except ChildWorkflowError as error:
            self._go_on()
            raise PushFailed(FailureReport("build", f"the pipeline ended: {reason(error)}")) from error
        self._go_on()
        self.built = result.built
        if result.failure is not None:
            raise PushFailed(result.failure)
        return result.images

    async def _deploy(self, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...], attempt: int) -> None:
        vm = self.preview.vm
        assert vm is not None
        command = self._deploy_command(vm, plan, planned, images, attempt)
        deploying = Record(
            self._environment,
            EnvironmentState.DEPLOYING,
            "starting its services",
            self.run_id,
            vm_id=vm.order.vm_id,
            command=command,
        )
        try:
            await self._recorded_or_lost(deploying, vm)
            result = await vm.wait_result(command.command_id, "up", self._deploy_limit_s(plan))
        except (asyncio.CancelledError, FailureError) as error:
            if is_cancelled_exception(error):
                await protected(self._stop(command, vm))
            raise
        self._steps.extend(steps_of(result, _STEPS, "", workflow.time()))
        if result.outcome != "succeeded":
            self.preview.serves = False  # The old version's containers are replaced, in part at least.
            raise PushFailed(result.failure or FailureReport("up", f"the deployment was {result.outcome}"))
        await self._go_live(plan, vm, result)

    async def _stop(self, command: CommandOrder, vm: LeasedVm) -> None:
        """Tell the agent to stop what it may have begun; a VM that is gone has nothing to stop."""
        with contextlib.suppress(VmLost):
            await self._recorded_or_lost(Record(self._environment, command=self._stop_command(command)), vm)

    async def _recorded_or_lost(self, record: Record, vm: LeasedVm) -> None:
        """A command waits for its VM's ledger row; a VM that is never made gets none, and is no reason to wait on."""
        task = await unless(lambda: vm.is_gone, self._record(record))
        if not task.cancelled() and task.exception() is None:
            return
        vm.raise_if_gone()
        task.result()

    def _deploy_limit_s(self, plan: Plan) -> float:
        """The backstop: cloud, gateway and agent each keep their own, shorter limit and say why."""
        timings = self.order.timings
        boot_s = timings.create_limit_s + timings.boot_timeout_s
        return boot_s + timings.pull_timeout_s + plan.preview.health_timeout_s + MARGINS.result_s

    async def _go_live(self, plan: Plan, vm: LeasedVm, result: AgentEvent) -> None:
        """Visitors first, then the word "ready": one record writes the route and the rows."""
        began = workflow.time()
        self.lifetime.begin(began, self._ttl_s)
        await self.preview.renew(self.lifetime)
        self.preview.holds_data = self.preview.serves = True
        ready = Record(
            self._environment,
            EnvironmentState.READY,
            "every service is healthy",
            self.run_id,
            RunState.COMPLETED,
            vm_id=vm.order.vm_id,
            clear_failure=True,
            services=result.services,
            steps=(*self._steps, Step("route", RunState.COMPLETED, began, ended_at=began)),
            route=RouteOrder(self._environment, "ready", vm.order.vm_id, expose=plan.exposes),
            lifetime=self.lifetime.row(vm.order.vm_id),
            publishes=True,
        )
        await self._record(ready)

    async def _fail(self, report: FailureReport) -> None:
        """Say why, and free what serves nobody: a preview that never was ready, or whose VM is lost."""
        self.has_failed = True
        is_down = self.preview.is_lost or not self.preview.serves
        self.lifetime.resume(workflow.time(), self._ttl_s)
        failed = Record(
            self._environment,
            EnvironmentState.FAILED,
            report.message,
            self.run_id,
            RunState.FAILED,
            failure=report,
            steps=tuple(self._steps),
            route=RouteOrder(self._environment, "failed", phase=report.message[:200]) if is_down else None,
            lifetime=self.lifetime.row(self.preview.vm_id),
            publishes=True,
        )
        await self._record(failed)
        if self.preview.is_lost or not self.preview.holds_data:
            await protected(self.preview.drop())

    def _deploy_command(
        self, vm: LeasedVm, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...], attempt: int
    ) -> CommandOrder:
        return CommandOrder(
            command_id=f"{self.run_id}/deploy/{attempt}",
            vm_id=vm.order.vm_id,
            kind="deploy",
            environment_id=self._environment,
            run_id=self.run_id,
            deploy=DeployOrder(
                repo=self.facts.repo,
                sha=self.facts.sha,
                compose_files=plan.compose_files,
                images=images,
                expose=plan.exposes,
                urls=planned.urls,
                health_timeout_s=plan.preview.health_timeout_s,
                profiles=plan.profiles,
            ),
        )

    def _stop_command(self, command: CommandOrder) -> CommandOrder:
        return CommandOrder(
            command_id=f"{command.command_id}/stop",
            vm_id=command.vm_id,
            kind="stop",
            environment_id=self._environment,
            run_id=self.run_id,
            target_id=command.command_id,
        )

    async def _record(self, record: Record) -> None:
        await write(record, self.facts, self.preview.vm_id)

    def _show_building(self) -> None:
        """The plan wrote the rows; the run shows it too."""
        building = Record(self._environment, EnvironmentState.BUILDING, f"building its images, run {self.run_id}")
        mark(building, self.facts)
        describe_environment(self.facts, building, self.preview.vm_id)


def _url_arguments(plan: Plan, urls: tuple[str, ...]) -> dict[str, str]:
    """STAGELY_URL and STAGELY_URL_<SERVICE>, as build arguments."""
    if not urls:
        return {}
    named = {_url_variable(e.service): url for e, url in zip(plan.exposes, urls, strict=True)}
    return {"STAGELY_URL": urls[0], **named}


def _url_variable(service: str) -> str:
    """The name of a service's URL variable: `web-app` becomes STAGELY_URL_WEB_APP."""
    return "STAGELY_URL_" + "".join(c if c.isalnum() else "_" for c in service.upper())
