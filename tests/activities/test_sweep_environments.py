"""The reaper's look at environments: whom it tells to look, whom it leaves alone, and how it spares GitHub."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import ActivityEnvironment

from activities.sweep_environments import EnvironmentSweeps
from stagely.errors import GitHubRefused, GitHubUnavailable
from tests.activities.yard import AT_ONCE, Yard, new_sweep
from workflows.messages import Timings, environment_workflow_id
from workflows.sweeps import Findings, Leftover, Sweep, SweepInput

CLOSED, UNFOLLOWED = Leftover.CLOSED, Leftover.UNFOLLOWED
WEBHOOK, AGENT_EVENT = Leftover.WEBHOOK, Leftover.AGENT_EVENT
DRY = SweepInput(apart_s=0.0, is_dry_run=True)


def sweeps(yard: Yard) -> EnvironmentSweeps:
    return EnvironmentSweeps(yard.engine, yard.client, yard.pulls, Timings(boot_timeout_s=7))


async def survey(yard: Yard, sweep: Sweep | None = None) -> Findings:
    return await ActivityEnvironment().run(sweeps(yard).survey_environments, sweep or new_sweep())


async def deliver(yard: Yard, sweep: Sweep | None = None) -> Findings:
    return await ActivityEnvironment().run(sweeps(yard).deliver_webhooks, sweep or new_sweep())


async def actions(yard: Yard, pr: int = 1) -> Sequence[str]:
    return [event.action for event in await yard.looks(pr)]


# --- pull requests that closed unheard


async def test_environment_whose_pull_request_closed_unheard_is_told_to_look(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)

    found = await survey(yard)

    assert (found.seen[CLOSED], found.acted[CLOSED]) == (1, 1)
    assert await actions(yard) == ["reaper"]


async def test_environment_of_an_open_pull_request_is_left_alone(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)
    yard.pulls.open["local/app"] = {1}

    found = await survey(yard)

    assert found.seen == {CLOSED: 0, UNFOLLOWED: 0}
    assert await actions(yard) == []


async def test_retry_of_the_sweep_tells_the_same_once_more_and_the_next_sweep_anew(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)
    first = new_sweep()
    await survey(yard, first)
    await survey(yard, first)
    await survey(yard)

    ids = [event.delivery_id for event in await yard.looks(1)]

    assert ids[0] == ids[1] != ids[2]


async def test_environment_that_is_being_taken_down_is_not_hurried(yard: Yard) -> None:
    await yard.environment(pr=1, status="terminating")
    await yard.follow(1)

    assert (await survey(yard)).seen == {CLOSED: 0, UNFOLLOWED: 0}


async def test_gone_and_young_environments_are_not_looked_at(yard: Yard) -> None:
    await yard.environment(pr=1, status="terminated")
    await yard.environment(pr=2, age_s=60)

    assert (await survey(yard)).seen == {CLOSED: 0, UNFOLLOWED: 0}
    assert yard.pulls.asked == []


async def test_a_repository_is_asked_about_once_however_many_environments_it_has(yard: Yard) -> None:
    for pr in (1, 2, 3):
        await yard.environment(pr)

    await survey(yard)

    assert yard.pulls.asked == ["local/app"]


async def test_rate_limit_ends_the_asking_and_nothing_else(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.add_project("prj-other", "local/other")
    await yard.environment(pr=2, project="prj-other")
    await yard.follow(2, "prj-other")
    limit = GitHubUnavailable("GitHub answered 403", retry_after_s=60)
    yard.pulls.fails = {"local/app": limit, "local/other": limit}

    found = await survey(yard)

    assert len(yard.pulls.asked) == 1
    assert found.notes == ("GitHub was not asked any further: GitHub answered 403",)
    assert found.seen == {CLOSED: 0, UNFOLLOWED: 1}


async def test_repository_that_refuses_does_not_hide_the_others(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)
    await yard.add_project("prj-refuses", "local/refuses")
    await yard.environment(pr=2, project="prj-refuses")
    await yard.follow(2, "prj-refuses")
    yard.pulls.fails = {"local/refuses": GitHubRefused("the App was removed")}

    found = await survey(yard)

    assert found.acted == {CLOSED: 1, UNFOLLOWED: 0}
    assert found.notes == ("pull requests of local/refuses were not compared: the App was removed",)


# --- environments that nobody follows


async def test_environment_whose_workflow_was_terminated_gets_a_new_one(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)
    await yard.end(environment_workflow_id(yard.project_id, 1))
    yard.pulls.open["local/app"] = {1}

    found = await survey(yard)

    assert found.acted == {CLOSED: 0, UNFOLLOWED: 1}
    assert await actions(yard) == ["reaper"]
    running = await yard.client.get_workflow_handle(environment_workflow_id(yard.project_id, 1)).describe()
    assert (running.status, running.workflow_type) == (WorkflowExecutionStatus.RUNNING, "EnvironmentWorkflow")


async def test_environment_without_a_workflow_is_also_followed_when_its_pull_request_is_closed(yard: Yard) -> None:
    await yard.environment(pr=1, status="terminating")

    assert (await survey(yard)).acted == {CLOSED: 0, UNFOLLOWED: 1}


async def test_no_more_workflows_are_started_at_once_than_the_ceiling_allows(yard: Yard) -> None:
    for pr in (1, 2, 3):
        await yard.environment(pr)
    yard.pulls.open["local/app"] = {1, 2, 3}

    found = await survey(yard, new_sweep(AT_ONCE, ceiling=2))

    assert (found.due[UNFOLLOWED], found.acted[UNFOLLOWED]) == (3, 2)
    assert [len(await yard.looks(pr)) for pr in (1, 2, 3)] == [1, 1, 0]


async def test_dry_run_tells_nobody(yard: Yard) -> None:
    await yard.environment(pr=1)
    await yard.follow(1)

    found = await survey(yard, new_sweep(DRY))

    assert (found.seen[CLOSED], found.acted[CLOSED]) == (1, 0)
    assert await actions(yard) == []


# --- webhooks and agents' events that wait


async def test_webhook_that_nobody_dispatched_reaches_its_workflow(yard: Yard) -> None:
    delivery = await yard.webhook(pr=1, age_s=400)

    found = await deliver(yard)

    assert found.acted == {WEBHOOK: 1}
    assert [(event.delivery_id, event.action) for event in await yard.looks(1)] == [(delivery, "synchronize")]
    assert await yard.undispatched() == []


async def test_webhook_that_temporal_refuses_does_not_hold_up_the_others(yard: Yard) -> None:
    refused = await yard.webhook(pr=1, age_s=500, project="x" * 1001)  # Temporal takes ids of 1,000 bytes at most.
    await yard.webhook(pr=2, age_s=400)

    found = await deliver(yard)

    assert (found.due, found.acted) == ({WEBHOOK: 2}, {WEBHOOK: 1})
    assert await yard.undispatched() == [refused]
    assert [note[:36] for note in found.notes] == ["Temporal did not take the signal to "]


async def test_fresh_webhook_is_the_apis_to_dispatch(yard: Yard) -> None:
    delivery = await yard.webhook(pr=1, age_s=60)

    assert (await deliver(yard)).seen[WEBHOOK] == 0
    assert await yard.undispatched() == [delivery]


async def test_dry_run_leaves_webhooks_in_the_inbox(yard: Yard) -> None:
    delivery = await yard.webhook(pr=1, age_s=400)

    assert (await deliver(yard, new_sweep(DRY))).acted == {WEBHOOK: 0}
    assert await yard.undispatched() == [delivery]


async def test_events_that_no_gateway_forwards_are_only_reported(yard: Yard) -> None:
    await yard.agent_event("vm-a", age_s=400)
    await yard.agent_event("vm-b", age_s=60)

    found = await deliver(yard)

    assert (found.seen[AGENT_EVENT], found.due) == (1, {WEBHOOK: 0})
    assert found.notes == ("1 events of agents wait for a gateway to forward them",)
