"""PipelineWorkflow: one push. Fan out one builder VM per target and architecture, fan in, merge manifests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import groupby

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.images import ImageActivities
    from activities.records import RecordActivities
    from activities.slots import SlotActivities

from stagely.ids import mint
from stagely.plan import BuildTarget
from stagely.states import RunState, VmRole
from workflows.failures import reason, report_of
from workflows.fanout import fanout, protected
from workflows.leased_vm import LeasedVm, VmLost
from workflows.messages import (
    AgentEvent,
    BuildJobRef,
    BuildOrder,
    BuiltImage,
    CommandOrder,
    FailureReport,
    PipelineInput,
    PipelineResult,
    Placement,
    VmLeaseInput,
)
from workflows.options import BUILD_ATTEMPTS, MARGINS, REGISTRY, SLOT, STORE
from workflows.orders import MergeOrder, Record, SlotRequest, Step
from workflows.status import table
from workflows.steps import steps_of

_STEPS = ("clone", "build", "push")
_ANYWHERE = (Placement(),)
_CELL_CHARACTERS = 120


class BuildFailed(ApplicationError):
    """One target's build ended without an image; `report` is for the person who pushed."""

    def __init__(self, report: FailureReport) -> None:
        super().__init__(report.message, type="BuildFailed", non_retryable=True)
        self.report = report


@workflow.defn
class PipelineWorkflow:
    """Builds every job of one push. A failed job stops its siblings unless `keep_going`; every builder is released."""

    @workflow.init
    def __init__(self, order: PipelineInput) -> None:
        self._order = order
        self._builders: dict[str, LeasedVm] = {}
        self._built = {job.key: job.digest for job in order.jobs if job.digest}
        self._building = {job.build_id for job in order.jobs if not job.digest}
        self._is_stopping = False
        self._progress = {job.build_id: "built before" if job.digest else "waiting" for job in order.jobs}

    @workflow.run
    async def run(self, order: PipelineInput) -> PipelineResult:
        self._show()
        try:
            digests = await fanout([self._job(job) for job in order.jobs], keep_going=order.keep_going)
            pairs = list(zip(order.jobs, digests, strict=True))
            targets = [list(group) for _, group in groupby(pairs, key=lambda pair: pair[0].target.name)]
            merged = await fanout([self._merged(group) for group in targets])
        except BuildFailed as error:
            return PipelineResult(failure=error.report, built=self._built)
        images = tuple(
            image
            for group, built in zip(targets, merged, strict=True)
            for image in _for_services(group[0][0].target, built)
        )
        return PipelineResult(images=images, built=self._built)

    @workflow.signal
    def agent_event(self, event: AgentEvent) -> None:
        """What a builder's agent reports; unknown VMs are ignored, repeats change nothing."""
        if event.vm_id in self._builders:
            self._builders[event.vm_id].note(event)

    async def _job(self, job: BuildJobRef) -> str:
        """The digest of one job's image. Raises BuildFailed."""
        if job.digest:
            return job.digest
        try:
            await self._wait_for_slot(job)
            digest = await self._on_some_vm(job)
        except BuildFailed:
            self._is_stopping = not self._order.keep_going
            raise
        self._built[job.key] = digest
        return digest

    async def _wait_for_slot(self, job: BuildJobRef) -> None:
        """A limited number of builds runs at once; its position is shown while a job waits."""
        if job.has_slot:
            return
        self._note(job, "waiting for a build slot")
        request = SlotRequest(job.build_id, self._order.run_id, self._order.environment_id)
        try:
            await workflow.execute_activity_method(
                SlotActivities.acquire, request, summary=f"slot for {job.key}", **SLOT
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            report = replace(report_of("slot", error), subject=job.target.name)
            self._note(job, _failed(report))
            await self._record(job, RunState.FAILED)
            raise BuildFailed(report) from error

    async def _on_some_vm(self, job: BuildJobRef) -> str:
        """Build on one VM after another: a lost one is replaced once, a sold out placement gives way to the next."""
        placements = list(self._order.placements or _ANYWHERE)
        attempt = losses = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(job, attempt, placements[0])
            except VmLost as error:
                self._go_on()
                if error.is_sold_out and len(placements) > 1:
                    placements.pop(0)
                    continue
                losses += 1
                if losses < BUILD_ATTEMPTS and error.may_retry:
                    continue
                self._note(job, _failed(error.report))
                await self._record(job, RunState.FAILED)
                raise BuildFailed(replace(error.report, subject=job.target.name)) from error

    async def _attempt(self, job: BuildJobRef, attempt: int, placement: Placement) -> str:
        builder = LeasedVm(self._lease_order(job, attempt, placement))
        self._builders[builder.order.vm_id] = builder
        command = builder.order.command
        assert command is not None
        self._note(job, f"on VM {builder.order.vm_id}")
        await builder.open(ParentClosePolicy.REQUEST_CANCEL)
        try:
            self._go_on()
            result = await builder.wait_result(command.command_id, "build")
        except BaseException:
            await protected(builder.release())
            raise
        self._building.discard(job.build_id)
        if self._building:  # The last one's VM goes with the pipeline's end, by its parent close policy.
            await protected(builder.release())
        return await self._finished(job, builder, result)

    @property
    def _lease_s(self) -> float:
        """The lease's deadline is the backstop: cloud, gateway and agent each keep a shorter limit and say why."""
        timings = self._order.timings
        return timings.create_limit_s + timings.boot_timeout_s + self._order.build_timeout_s + MARGINS.result_s

    def _go_on(self) -> None:
        """Raise the cancel that the SDK turned into one of the lease, when it came while the lease was starting."""
        if self._is_stopping or workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError

    async def _finished(self, job: BuildJobRef, builder: LeasedVm, result: AgentEvent) -> str:
        steps = steps_of(result, _STEPS, job.target.name, workflow.time())
        if result.outcome == "succeeded" and result.digest:
            reference = f"{self._repository(job)}@{result.digest}"
            self._note(job, f"built {result.digest[:19]}")
            await self._record(job, RunState.COMPLETED, builder, reference, steps)
            return result.digest
        report = result.failure or FailureReport("build", f"the build of {job.target.name} was {result.outcome}")
        self._note(job, _failed(report))
        await self._record(job, RunState.FAILED, builder, "", steps)
        raise BuildFailed(replace(report, subject=job.target.name))

    async def _merged(self, group: list[tuple[BuildJobRef, str]]) -> BuiltImage:
        job, digest = group[0]
        if len(group) == 1:
            return BuiltImage(job.target.service, job.target.name, f"{self._repository(job)}@{digest}")
        order = MergeOrder(
            job.target.service, job.target.name, self._repository(job), tuple(digest for _, digest in group)
        )
        try:
            return await workflow.execute_activity_method(
                ImageActivities.merge, order, summary=job.target.name, **REGISTRY
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            report = FailureReport("merge", f"the images of {job.target.name} could not be merged: {reason(error)}")
            raise BuildFailed(report) from error

    def _lease_order(self, job: BuildJobRef, attempt: int, placement: Placement) -> VmLeaseInput:
        order = self._order
        vm_id = mint("vm", choice=workflow.random().choice)
        build = BuildOrder(
            repo=order.repo,
            sha=order.sha,
            target=replace(job.target, args={**job.target.args, **order.urls}),
            arch=job.arch,
            push_to=self._repository(job),
            cache=f"{order.registry}/{order.project_id}/cache/{job.target.name}:{job.arch}",
            timeout_s=order.build_timeout_s,
        )
        return VmLeaseInput(
            vm_id=vm_id,
            role=VmRole.BUILDER,
            project_id=order.project_id,
            environment_id=order.environment_id,
            owner_workflow_id=workflow.info().workflow_id,
            provider=order.provider,
            region=placement.region,
            size=placement.size,
            expires_in_s=self._lease_s,
            create_limit_s=order.timings.create_limit_s,
            arch=job.arch,
            run_id=order.run_id,
            build_id=job.build_id,
            job=job.target.name,
            command=CommandOrder(
                command_id=f"{order.run_id}/{job.build_id}/{attempt}",
                vm_id=vm_id,
                kind="build",
                environment_id=order.environment_id,
                run_id=order.run_id,
                build=build,
            ),
        )

    def _repository(self, job: BuildJobRef) -> str:
        return f"{self._order.registry}/{self._order.project_id}/{self._order.environment_id}/{job.target.name}"

    async def _record(
        self,
        job: BuildJobRef,
        state: RunState,
        builder: LeasedVm | None = None,
        artifact: str = "",
        steps: tuple[Step, ...] = (),
    ) -> None:
        record = Record(
            environment_id=self._order.environment_id,
            run_id=self._order.run_id,
            build_id=job.build_id,
            build_state=state,
            build_vm_id=builder.order.vm_id if builder else "",
            artifact=artifact,
            steps=steps,
        )
        await workflow.execute_activity_method(RecordActivities.record, record, summary=job.target.name, **STORE)

    def _note(self, job: BuildJobRef, progress: str) -> None:
        self._progress[job.build_id] = progress
        self._show()

    def _show(self) -> None:
        rows = [(job.target.name, job.arch, self._progress[job.build_id]) for job in self._order.jobs]
        workflow.set_current_details(f"commit `{self._order.sha}`\n\n{table(('target', 'arch', 'is'), rows)}")


def _failed(report: FailureReport) -> str:
    """For one cell of the table; the comment and the dashboard have the whole of it."""
    return "failed: " + " ".join(report.message.split())[:_CELL_CHARACTERS].replace("|", "\\|")


def _for_services(target: BuildTarget, built: BuiltImage) -> list[BuiltImage]:
    """One image may run as several services."""
    return [replace(built, service=service) for service in (target.service, *target.also)]
