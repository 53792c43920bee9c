from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from workflows.fanout import fanout, protected

QUEUE = "fanout"


@activity.defn
async def endless() -> None:
    await asyncio.get_running_loop().create_future()


@workflow.defn
class Jobs:
    """Four jobs whose clean-up takes a while; `failing` names the one that fails, "" none."""

    @workflow.init
    def __init__(self, failing: str, keep_going: bool) -> None:
        self.cleaning = False
        self.has_failed = False
        self.cleaned: list[str] = []
        self.finished: list[str] = []

    @workflow.run
    async def run(self, failing: str, keep_going: bool) -> list[str]:
        jobs = [self._job(name, failing, keep_going) for name in ("a", "b", "c", "d")]
        return await fanout(jobs, keep_going=keep_going)

    @workflow.query
    def seen(self) -> tuple[list[str], list[str]]:
        return sorted(self.cleaned), sorted(self.finished)

    async def _job(self, name: str, failing: str, keep_going: bool) -> str:
        try:
            if failing and name != "a":
                await workflow.wait_condition(lambda: self._may_go_on(name, failing, keep_going))
            if name == failing:
                self.has_failed = True
                raise ApplicationError(f"{name} failed", non_retryable=True)
            self.finished.append(name)
            return name
        finally:
            await protected(self._clean(name))

    def _may_go_on(self, name: str, failing: str, keep_going: bool) -> bool:
        """The failing job fails when "a" is in its clean-up; the others go on after that, if they may."""
        return self.cleaning if name == failing else self.has_failed and keep_going

    async def _clean(self, name: str) -> None:
        self.cleaning = True
        await workflow.sleep(0.1)
        self.cleaned.append(name)


async def _run(client: Client, failing: str, keep_going: bool, name: str) -> tuple[object, tuple[list[str], list[str]]]:
    async with Worker(client, task_queue=QUEUE, workflows=[Jobs]):
        handle = await client.start_workflow(Jobs.run, args=[failing, keep_going], id=name, task_queue=QUEUE)
        try:
            outcome: object = await handle.result()
        except WorkflowFailureError as error:
            outcome = str(error.cause)
        return outcome, await handle.query(Jobs.seen)


async def test_all_results_come_back_in_order(temporal_client: Client) -> None:
    outcome, seen = await _run(temporal_client, "", False, "fanout-ok")

    assert outcome == ["a", "b", "c", "d"]
    assert seen == (["a", "b", "c", "d"], ["a", "b", "c", "d"])


async def test_a_failed_job_stops_its_siblings_and_every_clean_up_runs_to_its_end(temporal_client: Client) -> None:
    outcome, (cleaned, finished) = await _run(temporal_client, "b", False, "fanout-fail")

    assert outcome == "b failed"
    assert cleaned == ["a", "b", "c", "d"]
    assert finished == ["a"]


@workflow.defn
class Siblings:
    """The first job is cancelled inside an activity because the second one failed."""

    @workflow.run
    async def run(self) -> list[None]:
        return await fanout([self._waits(), self._fails()])

    async def _waits(self) -> None:
        await workflow.execute_activity(endless, start_to_close_timeout=timedelta(seconds=30))

    async def _fails(self) -> None:
        await workflow.sleep(0.1)
        raise ApplicationError("the reason", non_retryable=True)


async def test_the_reason_is_the_failure_and_not_the_sibling_that_was_cancelled_by_it(temporal_client: Client) -> None:
    async with Worker(temporal_client, task_queue=QUEUE, workflows=[Siblings], activities=[endless]):
        with pytest.raises(WorkflowFailureError) as failed:
            await temporal_client.execute_workflow(Siblings.run, id="fanout-siblings", task_queue=QUEUE)

    assert str(failed.value.cause) == "the reason"


async def test_with_keep_going_the_others_finish_and_the_failure_is_still_raised(temporal_client: Client) -> None:
    outcome, (cleaned, finished) = await _run(temporal_client, "b", True, "fanout-keep")

    assert outcome == "b failed"
    assert cleaned == ["a", "b", "c", "d"]
    assert finished == ["a", "c", "d"]


async def test_a_cancelled_workflow_still_cleans_everything_up(temporal_client: Client) -> None:
    async with Worker(temporal_client, task_queue=QUEUE, workflows=[Jobs]):
        handle = await temporal_client.start_workflow(
            Jobs.run, args=["none", False], id="fanout-cancel", task_queue=QUEUE
        )
        async with asyncio.timeout(20):
            while "a" not in (await handle.query(Jobs.seen))[1]:  # noqa: ASYNC110  # A workflow has no event for us.
                await asyncio.sleep(0.02)

        await handle.cancel()

        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await handle.query(Jobs.seen))[0] == ["a", "b", "c", "d"]


async def test_a_collected_run_starts_no_clean_up_in_another_workflow() -> None:
    started: list[str] = []

    async def clean() -> None:
        started.append("clean")

    async def job() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await protected(clean())

    held = job()
    held.send(None)
    held.close()  # What the garbage collector does with a coroutine whose run left this worker.

    assert started == []
