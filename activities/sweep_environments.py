"""The reaper's look at environments: pull requests that closed unheard, workflows that ended, webhooks left behind.

Nothing is ended here. The environment's workflow is told to look, and started for that when it does not run.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client

from activities import running
from activities.heartbeats import heartbeating
from stagely.db.queries import environments, sweeps
from stagely.db.queries.sweeps import SweptEnvironment
from stagely.errors import GitHubRefused, GitHubUnavailable, NotFound, Unavailable
from stagely.states import EnvironmentState
from workflows.messages import PullRequestEvent, Timings, environment_workflow_id
from workflows.sweeps import Findings, Leftover, Sweep

ACTION = "reaper"
"""`PullRequestEvent.action` of a sweep: no reason to bring back what was stopped."""

log = structlog.get_logger()


class PullRequests(Protocol):
    """What of GitHub is read here; see stagely.github.GitHub."""

    async def open_pull_requests(self, repo: str) -> Collection[int]: ...


@dataclass(frozen=True, slots=True)
class EnvironmentSweeps:
    """`timings`: durations of environments whose workflow has to be started."""

    engine: AsyncEngine
    client: Client
    github: PullRequests
    timings: Timings

    @activity.defn
    async def survey_environments(self, sweep: Sweep) -> Findings:
        """Tell the workflows of living environments whose pull request is closed, or which do not run, to look.

        GitHub is asked once per repository. A rate limit or an outage ends the asking until the next sweep. At most
        `sweep.ceiling` of each kind are told: a Temporal that lost its data must not build everything at once.
        """
        async with heartbeating():
            living = await sweeps.living_environments(self.engine, sweep.order.min_age_s)
            closed, notes = await self._closed(living)
            ended = await running.not_running(self.client, {_workflow_of(one) for one in living})
            found = {
                Leftover.UNFOLLOWED: [one for one in living if _workflow_of(one) in ended],
                Leftover.CLOSED: [one for one in closed if _is_unheard(one) and _workflow_of(one) not in ended],
            }
            acted = {kind: await self._tell(sweep, them[: sweep.ceiling], notes) for kind, them in found.items()}
        seen = {kind: len(them) for kind, them in found.items()}
        return Findings(_plain(seen), _plain(seen), _plain(acted), notes=tuple(notes))

    @activity.defn
    async def deliver_webhooks(self, sweep: Sweep) -> Findings:
        """Dispatch webhooks that the api stored and did not dispatch; count agents' events that no gateway forwards.

        A webhook that Temporal does not take stays in the inbox and does not hold up the others: order means nothing
        to a workflow that reads the pull request again.
        """
        before = datetime.now(UTC) - timedelta(seconds=sweep.order.undelivered_s)
        async with heartbeating():
            waiting = await environments.undispatched(self.engine, before)
            stuck = await sweeps.unforwarded(self.engine, sweep.order.undelivered_s)
            notes = [f"{stuck} events of agents wait for a gateway to forward them"] if stuck else []
            delivered = 0
            for one in [] if sweep.order.is_dry_run else waiting:
                event = PullRequestEvent(one.delivery_id, one.action, one.received_at.timestamp())
                if await self._sent(one.project_id, one.pr, event, notes):
                    await environments.mark_dispatched(self.engine, one.delivery_id)
                    delivered += 1
        count = {Leftover.WEBHOOK: len(waiting)}
        seen, acted = count | {Leftover.AGENT_EVENT: stuck}, {Leftover.WEBHOOK: delivered}
        return Findings(_plain(seen), _plain(count), _plain(acted), notes=tuple(notes))

    async def _closed(self, living: Sequence[SweptEnvironment]) -> tuple[list[SweptEnvironment], list[str]]:
        """Those whose pull request is not open, and why some repositories could not be asked."""
        by_repo: dict[str, list[SweptEnvironment]] = defaultdict(list)
        for one in living:
            by_repo[one.repo_full_name].append(one)
        closed: list[SweptEnvironment] = []
        notes: list[str] = []
        # Another order each time: a rate limit must not keep the same repositories unseen for ever.
        for repo in random.sample(sorted(by_repo), len(by_repo)):
            try:
                still_open = await self.github.open_pull_requests(repo)
            except (NotFound, GitHubRefused) as error:
                notes.append(f"pull requests of {repo} were not compared: {error}")
            except GitHubUnavailable as error:
                notes.append(f"GitHub was not asked any further: {error}")
                break
            else:
                closed += [one for one in by_repo[repo] if one.pr not in still_open]
        return closed, notes

    async def _tell(self, sweep: Sweep, them: Sequence[SweptEnvironment], notes: list[str]) -> int:
        """How many took it. `notes` gets why the others did not."""
        told = 0
        for one in [] if sweep.order.is_dry_run else them:
            # One id per sweep: a retry of this activity is dropped, the next sweep's is heard.
            event = PullRequestEvent(f"{ACTION}/{sweep.sweep_id}/{one.id}", ACTION, time.time())
            told += await self._sent(one.project_id, one.pr, event, notes)
        return told

    async def _sent(self, project_id: str, pr: int, event: PullRequestEvent, notes: list[str]) -> bool:
        try:
            await running.look_at_pull_request(self.client, self.timings, project_id, pr, event)
        except Unavailable as error:
            notes.append(str(error))
            return False
        log.warning("environment told to look", project_id=project_id, pr=pr, delivery=event.delivery_id)
        return True


def _workflow_of(one: SweptEnvironment) -> str:
    return environment_workflow_id(one.project_id, one.pr)


def _is_unheard(one: SweptEnvironment) -> bool:
    return one.status != EnvironmentState.TERMINATING  # Its workflow runs and is at it.


def _plain(counts: Mapping[Leftover, int]) -> dict[str, int]:
    return {str(kind): count for kind, count in counts.items()}
