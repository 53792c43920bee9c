"""One push of an environment: plan, build, deploy, route.

A coroutine of EnvironmentWorkflow; the next push cancels it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.agents import AgentActivities
    from activities.github import GitHubActivities
    from activities.records import RecordActivities
    from activities.routes import RouteActivities
    from activities.source import SourceActivities

from stagely.ids import mint
from workflows.fanout import fanout, protected, start
from workflows.leased_vm import LeasedVm, VmLost
from workflows.messages import (
    AgentEvent,
    BuiltImage,
    CommandOrder,
    DeployOrder,
    EnvironmentInput,
    EnvironmentRef,
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
from workflows.options import GITHUB, MARGINS, STORE
from workflows.pipeline import PipelineWorkflow
from workflows.steps import steps_of

_STEPS = ("clone", "pull", "up", "health")


@dataclass(slots=True)
class Preview:
    """The environment's preview VM across pushes. `spec` is what it was ordered as; another spec means another VM."""

    vm: LeasedVm | None = None
    spec: tuple[str, str, str, str] = ("", "", "", "")
    was_ready: bool = False

    @property
    def is_lost(self) -> bool:
        return self.vm is not None and self.vm.is_gone

    def note(self, event: AgentEvent) -> None:
        if self.vm is not None and event.vm_id == self.vm.order.vm_id:
            self.vm.note(event)

    async def release(self) -> None:
        """Have the VM destroyed and wait until it is proven gone. None: nothing to do."""
        if self.vm is not None:
            await self.vm.release()
            await self.vm.wait_closed()

    def forget(self) -> None:
        self.vm, self.was_ready = None, False


class PushFailed(Exception):
    """This push ends here; `report` says why. Never leaves this file."""

    def __init__(self, report: FailureReport) -> None:
        super().__init__(report.message)
        self.report = report


@dataclass(slots=True)
class Push:
    """Brings one commit to the preview. Ends with the environment ready or failed, recorded, routed and commented."""

    order: EnvironmentInput
    facts: PullRequestFacts
    preview: Preview
    received_at: float
    run_id: str = ""
    ttl_s: float = 0.0
    is_ready: bool = False
    _steps: list[Step] = field(default_factory=list)

    async def run(self) -> None:
        self.run_id = mint("run", choice=workflow.random().choice)
        self.ttl_s = self.order.timings.ttl_s
        self._show("planning")
        try:
            await self._deploy_commit()
        except PushFailed as error:
            await self._fail(error.report)
        except VmLost as error:
            await self._fail(error.report)
        except asyncio.CancelledError:
            await protected(self._record(Record(self._environment, run_id=self.run_id, run_state=RunState.CANCELLED)))
            raise

    @property
    def _environment(self) -> str:
        return self.facts.environment_id

    async def _deploy_commit(self) -> None:
        planned = await self._plan()
        plan = planned.plan
        assert plan is not None
        self.ttl_s = plan.preview.ttl_s
        self._show("building")
        announced = start(self._announce())
        try:
            await self._ensure_preview(plan)
            images = await self._build(planned, plan)
        finally:
            await protected(_settled(announced))
        await self._deploy(plan, planned, images)

    async def _announce(self) -> None:
        # A version that is up stays up while the next one is built; its visitors notice nothing.
        page = [] if self.preview.was_ready else [self._route("building", "building its images")]
        await fanout([*page, self._comment()])

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
            raise _failed("plan", error) from error
        if planned.failure is not None:
            raise PushFailed(planned.failure)
        return planned

    async def _ensure_preview(self, plan: Plan) -> None:
        """Keep the preview VM unless it is lost or was ordered otherwise; a new one boots while images are built."""
        preview = plan.preview
        spec = (preview.provider, preview.region, preview.size, preview.arch)
        if self.preview.vm is not None and (self.preview.is_lost or self.preview.spec != spec):
            await self.preview.release()
            self.preview.forget()
        if self.preview.vm is not None:
            return
        vm = LeasedVm(self._preview_order(plan))
        self.preview.vm, self.preview.spec = vm, spec
        await vm.open(ParentClosePolicy.ABANDON)

    def _preview_order(self, plan: Plan) -> VmLeaseInput:
        vm_id = mint("vm", choice=workflow.random().choice)
        prepare = CommandOrder(
            command_id=f"{self.run_id}/prepare",
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
            expires_in_s=self.order.timings.preview_lease_s,
            region=plan.preview.region,
            size=plan.preview.size,
            arch=plan.preview.arch,
            run_id=self.run_id,
            command=prepare if plan.pull else None,
        )

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
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            raise PushFailed(FailureReport("build", f"the pipeline ended: {error.cause or error}")) from error
        if result.failure is not None:
            raise PushFailed(result.failure)
        return result.images

    async def _deploy(self, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...]) -> None:
        vm = self.preview.vm
        assert vm is not None
        self._show("deploying")
        command = self._deploy_command(vm, plan, planned, images)
        deploying = Record(
            self._environment, EnvironmentState.DEPLOYING, "starting its services", self.run_id, vm_id=vm.order.vm_id
        )
        await fanout([self._order_command(command), self._record(deploying)])
        try:
            await vm.wait_online(self.order.timings.boot_timeout_s)
            limit_s = plan.preview.health_timeout_s + self.order.timings.pull_timeout_s + MARGINS.result_s
            result = await vm.wait_result(command.command_id, limit_s, "up")
        except asyncio.CancelledError:
            await protected(self._stop_command(command))
            raise
        self._steps.extend(steps_of(result, _STEPS, "", workflow.time()))
        if result.outcome != "succeeded":
            raise PushFailed(result.failure or FailureReport("up", f"the deployment was {result.outcome}"))
        await self._go_live(plan, vm, result)

    async def _go_live(self, plan: Plan, vm: LeasedVm, result: AgentEvent) -> None:
        began = workflow.time()
        await self._route("ready", "", vm.order.vm_id, plan)
        self._steps.append(Step("route", RunState.COMPLETED, began, ended_at=workflow.time()))
        self.preview.was_ready = self.is_ready = True
        self._show("ready")
        await self._record(
            Record(
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
        )
        await self._comment()

    async def _fail(self, report: FailureReport) -> None:
        """Say why, and free what serves nobody: a preview that never was ready, or whose VM is lost."""
        self._show(f"failed: {report.message}")
        keep = self.preview.was_ready and not self.preview.is_lost
        still_serves = keep and report.step not in ("pull", "up", "health")
        if not still_serves:
            await self._route("failed", report.message[:200])
        if not keep:
            await protected(self._drop_preview())
        await self._record(
            Record(
                self._environment,
                EnvironmentState.FAILED,
                report.message,
                self.run_id,
                RunState.FAILED,
                failure=report,
                steps=tuple(self._steps),
            )
        )
        await self._comment()

    async def _drop_preview(self) -> None:
        await self.preview.release()
        self.preview.forget()

    def _deploy_command(
        self, vm: LeasedVm, plan: Plan, planned: PlanResult, images: tuple[BuiltImage, ...]
    ) -> CommandOrder:
        return CommandOrder(
            command_id=f"{self.run_id}/deploy",
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
            RecordActivities.record, record, summary=str(record.state or record.run_state or ""), **STORE
        )

    async def _route(self, status: str, phase: str, vm_id: str = "", plan: Plan | None = None) -> None:
        expose = plan.exposes if plan else ()
        await workflow.execute_activity_method(
            RouteActivities.show, RouteOrder(self._environment, status, vm_id, phase, expose), summary=status, **STORE
        )

    async def _comment(self) -> None:
        try:
            await workflow.execute_activity_method(
                GitHubActivities.publish, EnvironmentRef(self._environment), summary="comment", **GITHUB
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("the comment could not be written", extra={"error_code": str(error.cause)})

    def _show(self, phase: str) -> None:
        vm = self.preview.vm
        rows = [f"**{phase}**", f"commit `{self.facts.sha}`", f"run `{self.run_id}`"]
        rows.append(f"VM `{vm.order.vm_id}`" if vm else "no VM")
        workflow.set_current_details("\n\n".join(rows))


async def _settled(task: asyncio.Task[None]) -> None:
    await workflow.wait([task], return_when=asyncio.ALL_COMPLETED)


def _failed(step: str, error: ActivityError) -> PushFailed | asyncio.CancelledError:
    if is_cancelled_exception(error):
        return asyncio.CancelledError()
    code = getattr(error.cause, "type", "") or ""
    return PushFailed(FailureReport(step, str(error.cause or error), code=code))


def _url_arguments(plan: Plan, urls: tuple[str, ...]) -> dict[str, str]:
    """STAGELY_URL and STAGELY_URL_<SERVICE>, as build arguments."""
    if not urls:
        return {}
    named = {url_variable(e.service): url for e, url in zip(plan.exposes, urls, strict=True)}
    return {"STAGELY_URL": urls[0], **named}


def url_variable(service: str) -> str:
    """The name of a service's URL variable: `web-app` becomes STAGELY_URL_WEB_APP."""
    return "STAGELY_URL_" + "".join(c if c.isalnum() else "_" for c in service.upper())
