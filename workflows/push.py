"""One push of an environment: plan, build, deploy, route.

A coroutine of EnvironmentWorkflow; the next push cancels it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.agents import AgentActivities
    from activities.records import RecordActivities
    from activities.routes import RouteActivities
    from activities.source import SourceActivities

from stagely.ids import mint
from workflows.fanout import fanout, protected
from workflows.leased_vm import LeasedVm, VmLost
from workflows.messages import (
    AgentEvent,
    BuiltImage,
    CommandOrder,
    DeployOrder,
    EnvironmentInput,
    EnvironmentState,
    FailureReport,
    PipelineInput,
    PipelineResult,
    Plan,
    PlanRequest,
    PlanResult,
    PullRequestFacts,
    Record,
    RouteOrder,
    RunState,
    Step,
    VmLeaseInput,
    VmRole,
    pipeline_workflow_id,
)
from workflows.options import DEPLOY_ATTEMPTS, GITHUB, MARGINS, STORE, STORE_FOREVER
from workflows.pipeline import PipelineWorkflow
from workflows.publisher import Publisher
from workflows.steps import steps_of

_STEPS = ("clone", "pull", "up", "health")


@dataclass(slots=True)
class Preview:
    """The environment's preview VM across pushes. `spec` is what it was ordered as; another spec means another VM.

    `holds_data`: it was ready once, so people's data may be on it. `serves`: a version is up and routed now.
    """

    vm: LeasedVm | None = None
    spec: tuple[str, str, str, str] = ("", "", "", "")
    holds_data: bool = False
    serves: bool = False

    @property
    def is_lost(self) -> bool:
        return self.vm is not None and self.vm.is_gone

    def note(self, event: AgentEvent) -> None:
        if self.vm is not None and event.vm_id == self.vm.order.vm_id:
            self.vm.note(event)

    async def drop(self) -> None:
        """Have the VM destroyed, wait until it is proven gone, and forget it. None: nothing to do."""
        if self.vm is not None:
            await self.vm.release()
            await self.vm.wait_closed()
        self.vm, self.holds_data, self.serves = None, False, False


class PushFailed(Exception):
    """This push ends here; `report` says why. Never leaves this file."""

    def __init__(self, report: FailureReport) -> None:
        super().__init__(report.message)
        self.report = report


@dataclass(slots=True)
class Push:
    """Brings one commit to the preview. Ends with the environment ready or failed, recorded, routed and commented.

    `is_superseded` is set before the task is cancelled: a cancel that comes while a child is starting is turned into
    one of the child by the SDK and swallowed here (seen), so the flag is looked at after such an await.
    """

    order: EnvironmentInput
    facts: PullRequestFacts
    preview: Preview
    received_at: float
    publisher: Publisher
    run_id: str = ""
    ttl_s: float = 0.0
    is_superseded: bool = False
    _steps: list[Step] = field(default_factory=list)

    async def run(self) -> None:
        """Raises CancelledError when it is superseded, and nothing else but bugs."""
        self.run_id = mint("run", choice=workflow.random().choice)
        self.ttl_s = self.order.timings.ttl_s
        self._show("planning")
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
            return _report("deploy", error)
        return None

    @property
    def _environment(self) -> str:
        return self.facts.environment_id

    def _go_on(self) -> None:
        if self.is_superseded or workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError

    async def _deploy_commit(self) -> None:
        planned = await self._plan()
        plan = planned.plan
        assert plan is not None
        self.ttl_s = plan.preview.ttl_s
        self._show("building")
        self.publisher.publish(self._environment)
        # A version that is up stays up while the next one is built; its visitors notice nothing.
        if not self.preview.serves:
            await self._route("building", "building its images")
        await self._ensure_preview(plan)
        images = await self._build(planned, plan)
        for attempt in range(1, DEPLOY_ATTEMPTS + 1):
            await self._ensure_preview(plan)
            try:
                await self._deploy(plan, planned, images, attempt)
                return
            except VmLost as error:
                self._go_on()
                if attempt == DEPLOY_ATTEMPTS or not error.may_retry:
                    raise
                self.preview.serves = False

    async def _plan(self) -> PlanResult:
        request = PlanRequest(
            run_id=self.run_id,
            project_id=self.order.project_id,
            environment_id=self._environment,
            pr=self.order.pr,
            sha=self.facts.sha,
            received_at=self.received_at,
            title=self.facts.title,
        )
        try:
            planned = await workflow.execute_activity_method(
                SourceActivities.plan, request, summary=f"plan {self.facts.sha[:12]}", **GITHUB
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            raise PushFailed(_report("plan", error)) from error
        if planned.failure is not None:
            raise PushFailed(planned.failure)
        return planned

    async def _ensure_preview(self, plan: Plan) -> None:
        """Keep the preview VM unless it is lost or was ordered otherwise; a new one boots while images are built."""
        preview = plan.preview
        spec = (preview.provider, preview.region, preview.size, preview.arch)
        if self.preview.vm is not None and (self.preview.is_lost or self.preview.spec != spec):
            await self.preview.drop()
        if self.preview.vm is not None:
            return
        vm = LeasedVm(self._preview_order(plan))
        self.preview.vm, self.preview.spec = vm, spec
        await vm.open(ParentClosePolicy.ABANDON)
        if self.is_superseded:
            vm.lost = True  # The swallowed cancel went to its lease, which ends; the next push orders another VM.
        self._go_on()

    def _preview_order(self, plan: Plan) -> VmLeaseInput:
        vm_id = mint("vm", choice=workflow.random().choice)
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
            region=plan.preview.region,
            size=plan.preview.size,
            arch=plan.preview.arch,
            run_id=self.run_id,
            command=prepare if plan.pull else None,
        )

    def _lease_s(self) -> float:
        return self.ttl_s + self.order.timings.lease_margin_s

    async def _build(self, planned: PlanResult, plan: Plan) -> tuple[BuiltImage, ...]:
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
        )
        try:
            result: PipelineResult = await workflow.execute_child_workflow(
                PipelineWorkflow.run,
                order,
                id=pipeline_workflow_id(self.run_id),
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"commit {self.facts.sha[:12]}",
            )
        except ChildWorkflowError as error:
            self._go_on()
            raise PushFailed(FailureReport("build", f"the pipeline ended: {error.cause or error}")) from error
        self._go_on()
        if result.failure is not None:
            raise PushFailed(result.failure)
        return result.images

    async def _deploy(self, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...], attempt: int) -> None:
        vm = self.preview.vm
        assert vm is not None
        self._show("deploying")
        command = self._deploy_command(vm, plan, planned, images, attempt)
        deploying = Record(
            self._environment, EnvironmentState.DEPLOYING, "starting its services", self.run_id, vm_id=vm.order.vm_id
        )
        try:
            await fanout([self._order_command(command), self._record(deploying)])
            await vm.wait_online(self.order.timings.boot_timeout_s)
            limit_s = plan.preview.health_timeout_s + self.order.timings.pull_timeout_s + MARGINS.result_s
            result = await vm.wait_result(command.command_id, limit_s, "up")
        except (asyncio.CancelledError, FailureError) as error:
            if is_cancelled_exception(error):
                await protected(self._stop_command(command))
            raise
        self._steps.extend(steps_of(result, _STEPS, "", workflow.time()))
        if result.outcome != "succeeded":
            self.preview.serves = False  # The old version's containers are replaced, in part at least.
            raise PushFailed(result.failure or FailureReport("up", f"the deployment was {result.outcome}"))
        await self._go_live(plan, vm, result)

    async def _go_live(self, plan: Plan, vm: LeasedVm, result: AgentEvent) -> None:
        began = workflow.time()
        await self._route("ready", "", vm.order.vm_id, plan)
        self._steps.append(Step("route", RunState.COMPLETED, began, ended_at=workflow.time()))
        self.preview.holds_data = self.preview.serves = True
        self._show("ready")
        ready = Record(
            self._environment,
            EnvironmentState.READY,
            "every service is healthy",
            self.run_id,
            RunState.COMPLETED,
            vm_id=vm.order.vm_id,
            clear_failure=True,
            services=result.services,
            steps=tuple(self._steps),
        )
        await fanout([self._record(ready), vm.renew(self._lease_s())])
        self.publisher.publish(self._environment)

    async def _fail(self, report: FailureReport) -> None:
        """Say why, and free what serves nobody: a preview that never was ready, or whose VM is lost."""
        self._show(f"failed: {report.message}")
        if self.preview.is_lost or not self.preview.serves:
            await self._route("failed", report.message[:200])
        if self.preview.is_lost or not self.preview.holds_data:
            await protected(self.preview.drop())
        failed = Record(
            self._environment,
            EnvironmentState.FAILED,
            report.message,
            self.run_id,
            RunState.FAILED,
            failure=report,
            steps=tuple(self._steps),
        )
        await self._record(failed)
        self.publisher.publish(self._environment)

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

    async def _stop_command(self, command: CommandOrder) -> None:
        stop = CommandOrder(
            command_id=f"{command.command_id}/stop",
            vm_id=command.vm_id,
            kind="stop",
            environment_id=self._environment,
            run_id=self.run_id,
            target_id=command.command_id,
        )
        await self._order_command(stop)

    async def _order_command(self, command: CommandOrder) -> None:
        await workflow.execute_activity_method(AgentActivities.order, command, summary=command.kind, **STORE)

    async def _record(self, record: Record) -> None:
        await workflow.execute_activity_method(
            RecordActivities.record, record, summary=str(record.state or record.run_state or ""), **STORE_FOREVER
        )

    async def _route(self, status: str, phase: str, vm_id: str = "", plan: Plan | None = None) -> None:
        expose = plan.exposes if plan else ()
        await workflow.execute_activity_method(
            RouteActivities.show,
            RouteOrder(self._environment, status, vm_id, phase, expose),
            summary=status,
            **STORE_FOREVER,
        )

    def _show(self, phase: str) -> None:
        vm = self.preview.vm
        rows = [f"**{phase}**", f"commit `{self.facts.sha}`", f"run `{self.run_id}`"]
        rows.append(f"VM `{vm.order.vm_id}`" if vm else "no VM")
        workflow.set_current_details("\n\n".join(rows))


def _report(step: str, error: ActivityError | ChildWorkflowError) -> FailureReport:
    return FailureReport(step, str(error.cause or error), code=getattr(error.cause, "type", "") or "")


def _url_arguments(plan: Plan, urls: tuple[str, ...]) -> dict[str, str]:
    """STAGELY_URL and STAGELY_URL_<SERVICE>, as build arguments."""
    if not urls:
        return {}
    named = {url_variable(e.service): url for e, url in zip(plan.exposes, urls, strict=True)}
    return {"STAGELY_URL": urls[0], **named}


def url_variable(service: str) -> str:
    """The name of a service's URL variable: `web-app` becomes STAGELY_URL_WEB_APP."""
    return "STAGELY_URL_" + "".join(c if c.isalnum() else "_" for c in service.upper())
