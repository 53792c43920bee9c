"""Waits for one pull request's environment and tells each step as it begins and ends. What to tell is pure."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stagely.cli.api import ApiClient
from stagely.cli.bodies import EnvironmentView, StepView
from stagely.cli.progress import Progress
from stagely.cli.refusal import CommandFailed
from stagely.states import GONE, EnvironmentState, RunState

POLL_S = 0.3
TICK_S = 0.1  # A running line that moves looks alive.
NOTICE_TIMEOUT_S = 60.0  # Webhook to row takes well below a second; by then it was lost on the way.
AWAY_TIMEOUT_S = 60.0  # An api that restarts is back within seconds.
_SETTLED = (EnvironmentState.READY, EnvironmentState.FAILED, EnvironmentState.AWAITING_APPROVAL)
WORDS = {
    "webhook": "webhook to workflow",
    "plan": "plan",
    "vm_boot": "boot VM",
    "clone": "clone",
    "build": "build",
    "push": "push image",
    "merge": "merge images",
    "pull": "pull images",
    "up": "start containers",
    "health": "health checks",
    "route": "route",
    "teardown": "tear down",
}


@dataclass(frozen=True, slots=True)
class Past:
    """Where an environment was before something new was asked of it: that it is there still is no news."""

    environment_id: str
    run_id: str
    since: float

    @classmethod
    def of(cls, environment: EnvironmentView) -> Past:
        return cls(environment.id, environment.run.id if environment.run else "", environment.since)

    def is_present(self, environment: EnvironmentView) -> bool:
        return self == Past.of(environment)


@dataclass(frozen=True, slots=True)
class Target:
    """Which environment: of this project and pull request, at commit `sha` ("" for any), and further than `past`."""

    project: str
    pr: int
    sha: str = ""
    past: Past | None = None


def describe(step: StepView) -> str:
    """`build api`: the step's name for people, and its subject."""
    name = WORDS.get(step.name, step.name.replace("_", " "))
    subject = step.subject or ("preview" if step.name == "clone" else "")  # Builders have their target's name there.
    return f"{name} {subject}".strip()


def changes(told: dict[tuple[str, str, str], str], steps: Sequence[StepView]) -> list[StepView]:
    """Steps whose state was not told yet, in the order of their start; `told` is brought up to date."""
    new: list[StepView] = []
    for step in sorted(steps, key=lambda s: (s.started_at, s.name, s.subject)):
        key = (step.run_id, step.name, step.subject)
        if told.get(key) != step.state and step.state != RunState.PENDING:
            told[key] = step.state
            new.append(step)
    return new


def waits_for(environment: EnvironmentView | None) -> str:
    """What it waits for now, in one line."""
    if environment is None:
        return "waiting for the webhook to be taken"
    running = [describe(step) for step in environment.steps if step.state == RunState.RUNNING]
    return ", ".join([*running, *_queued(environment)]) or environment.message or environment.state.replace("_", " ")


def _queued(environment: EnvironmentView) -> list[str]:
    builds = environment.run.builds if environment.run else ()
    names = Counter(build.name for build in builds)
    return [
        f"{b.name}{f' ({b.arch})' if names[b.name] > 1 else ''} waits for a build slot, position {b.position}"
        for b in builds
        if b.position is not None
    ]


class Follower:
    """Polls the api. `pause` waits that many seconds; tests give one that does not."""

    def __init__(
        self,
        api: ApiClient,
        progress: Progress,
        pause: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._progress = progress
        self._pause = pause or threading.Event().wait
        self._clock = clock
        self._told: dict[tuple[str, str, str], str] = {}

    def until_settled(self, target: Target, timeout_s: float) -> EnvironmentView:
        """The environment once `target.sha` is ready, failed or waits for approval there, or it is gone.

        Raises:
            CommandFailed: it took longer than `timeout_s`, the push was never noticed, or a newer one replaced it.
        """
        first = next(iter(self._api.environments(project=target.project, pr=target.pr)), None)
        if first is not None and first.commit == target.sha and _is_settled(first, target):
            if first.state == EnvironmentState.READY:
                self._progress.say(f"commit {target.sha[:12]} was deployed already")
            return self._api.environment(first.id)
        return self._follow(target, timeout_s, _is_settled)

    def until_gone(self, target: Target, timeout_s: float) -> EnvironmentView | None:
        """The last of the environment once it is terminated; None when there never was one. Raises CommandFailed."""
        known = self._api.environments(project=target.project, pr=target.pr, gone_too=True)
        if not known:
            return None
        changes(self._told, known[0].steps)  # What happened before the close is an old story.
        return self._follow(target, timeout_s, lambda environment, _target: environment.state in GONE)

    def _follow(
        self, target: Target, timeout_s: float, is_over: Callable[[EnvironmentView, Target], bool]
    ) -> EnvironmentView:
        began = last_answer = self._clock()
        seen: EnvironmentView | None = None
        while True:
            now = self._clock()
            try:
                seen = self._look(target, seen) or seen
                last_answer = now
            except CommandFailed:
                if now - last_answer > AWAY_TIMEOUT_S:
                    raise
            if seen is not None:
                self._tell(seen, target)
                if is_over(seen, target):
                    return seen
            self._refuse_too_long(target, seen, now - began, timeout_s)
            self._wait(seen)

    def _look(self, target: Target, seen: EnvironmentView | None) -> EnvironmentView | None:
        """The living environment if there is one, else the one seen before: it may be gone by now."""
        living = self._api.environments(project=target.project, pr=target.pr)
        chosen = living[0] if living else seen
        if chosen is None:
            gone = self._api.environments(project=target.project, pr=target.pr, gone_too=True)
            chosen = next((e for e in gone if e.commit == target.sha), None) if target.sha else next(iter(gone), None)
        return None if chosen is None else self._api.environment(chosen.id)

    def _tell(self, environment: EnvironmentView, target: Target) -> None:
        """Steps of the run in question; an older run's steps would only confuse."""
        if target.sha and (environment.run is None or environment.run.sha != target.sha):
            return
        run_id = environment.run.id if environment.run else ""
        if target.past is not None and target.past.run_id == run_id:
            return
        for step in changes(self._told, [s for s in environment.steps if s.run_id in (run_id, "")]):
            if step.state == RunState.RUNNING:
                self._progress.started(describe(step))
            else:
                is_good = step.state == RunState.COMPLETED
                self._progress.ended(describe(step), step.seconds, is_good=is_good, detail=step.detail)

    def _refuse_too_long(self, target: Target, seen: EnvironmentView | None, past_s: float, timeout_s: float) -> None:
        if seen is None and past_s > min(NOTICE_TIMEOUT_S, timeout_s):
            raise CommandFailed(
                f"Pull request {target.pr} was opened, and after {past_s:.0f} s the api has no environment for it. "
                "Look at logs/forge.log (was the webhook delivered?) and logs/api.log in the state folder."
            )
        if past_s > timeout_s:
            raise CommandFailed(
                f"Not finished after {timeout_s:.0f} s; it was at: {waits_for(seen)}. It goes on by itself: "
                f"stagely logs {target.pr} -f shows it, --timeout SECONDS waits longer."
            )

    def _wait(self, seen: EnvironmentView | None) -> None:
        for _ in range(round(POLL_S / TICK_S)):
            self._progress.waiting(waits_for(seen))
            self._pause(TICK_S)


def _is_settled(environment: EnvironmentView, target: Target) -> bool:
    if target.past is not None and target.past.is_present(environment):
        return False
    if environment.state in GONE:
        return True
    if environment.state not in _SETTLED:
        return False
    return not target.sha or environment.commit == target.sha
