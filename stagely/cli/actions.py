"""What a person asks of a pull request's environment: extend, pin, unpin, redeploy, retry, stop, approve."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from stagely.cli import outcome as outcomes
from stagely.cli.asking import Action, action, ask
from stagely.cli.bodies import ActionView, EnvironmentView
from stagely.cli.commands import Session, age, named
from stagely.cli.follow import Past, Target
from stagely.cli.outcome import Outcome
from stagely.cli.refusal import EXIT_READY, NotAcceptable
from stagely.states import GONE, EnvironmentState

_SHORTEST_SHA = 7  # What git itself abbreviates to.


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether to wait for what an action leads to, and for how long."""

    wait: bool
    timeout_s: float


def extend(here: Session, what: str, duration: str, key: str | None) -> Outcome:
    """Move the end of a preview's time by a duration such as 12h."""
    return _keep(here, what, action("extend", key, duration=duration))


def pin(here: Session, what: str, key: str | None) -> Outcome:
    """Keep a preview until its pull request closes."""
    return _keep(here, what, action("pin", key))


def unpin(here: Session, what: str, key: str | None) -> Outcome:
    """Count a preview's time again, from now."""
    return _keep(here, what, action("unpin", key))


def redeploy(here: Session, what: str, key: str | None, waiting: Waiting) -> Outcome:
    """Build and deploy the head of an open pull request once more, also when its environment ended."""
    environment = named(here, what)
    if environment.state in GONE and not here.pulls.is_open(environment.repo, environment.pr):
        raise NotAcceptable(
            f"Pull request {environment.pr} of {environment.repo} is closed. Open it again: "
            f"stagely up PATH --pr {environment.pr}{here.installation.option}"
        )
    return _deploy(here, environment, action("redeploy", key), waiting)


def retry(here: Session, what: str, key: str | None, waiting: Waiting) -> Outcome:
    """Go on from the step at which the last push failed."""
    return _deploy(here, named(here, what), action("retry", key), waiting)


def stop(here: Session, what: str, key: str | None, waiting: Waiting) -> Outcome:
    """End an environment though its pull request is open; the next push starts it again."""
    environment = named(here, what)
    ask(here.api, environment, action("stop", key))
    here.progress.headline(f"stopping the environment of pull request {environment.pr} of {environment.repo}")
    if waiting.wait:
        last = here.follower().until_gone(Target(environment.project_id, environment.pr), waiting.timeout_s)
        return outcomes.of_environment(last or environment, good=(last or environment).state)
    return _begun(
        environment, EnvironmentState.TERMINATING, "it is being removed; a redeploy or a push starts it again"
    )


def approve(here: Session, what: str, sha: str, key: str | None, waiting: Waiting, *, yes: bool) -> Outcome:
    """Let an outsider's commit run: the one that is named, or with `yes` the one that waits."""
    environment = named(here, what)
    if environment.state != EnvironmentState.AWAITING_APPROVAL:
        raise NotAcceptable(
            f"No commit of pull request {environment.pr} of {environment.repo} waits for approval: "
            f"it is {environment.state}."
        )
    pr, commit = environment.pr, environment.commit
    here.progress.say(f"commit {commit} waits in pull request {pr} of {environment.repo}: {environment.title}")
    if not sha and not yes:
        command = here.approve_command(what, commit)
        raise NotAcceptable(f"Look at commit {commit}, then approve it by its name: {command} (or say --yes).")
    _refuse_another(sha.lower(), commit)
    return _deploy(here, environment, action("approve", key, sha=commit), waiting)


def _refuse_another(sha: str, commit: str) -> None:
    if sha and not (re.fullmatch(r"[0-9a-f]{7,40}", sha) and commit.startswith(sha)):
        raise NotAcceptable(
            f"The commit that waits is {commit}, not {sha}. Look at that one, then name it "
            f"by {_SHORTEST_SHA} digits or more."
        )


def _keep(here: Session, what: str, wanted: Action) -> Outcome:
    environment = named(here, what)
    answer = ask(here.api, environment, wanted)
    kept = replace(environment, expires_at=answer.expires_at, is_pinned=answer.is_pinned)
    return replace(outcomes.of_environment(kept, good=kept.state), message=_stay(answer, time.time()))


def _stay(answer: ActionView, now: float) -> str:
    if answer.is_pinned:
        return "pinned: it stays until its pull request closes"
    if answer.expires_at is None:
        return "its time begins with its first deploy"
    until = datetime.fromtimestamp(answer.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"it stays until {until}, {age(answer.expires_at - now)} from now"


def _deploy(here: Session, environment: EnvironmentView, wanted: Action, waiting: Waiting) -> Outcome:
    past = Past.of(environment)
    ask(here.api, environment, wanted)
    here.progress.headline(f"{wanted.name} of pull request {environment.pr} of {environment.repo} begins")
    if not waiting.wait:
        return _begun(environment, EnvironmentState.QUEUED, f"the {wanted.name} was taken; not waiting")
    target = Target(environment.project_id, environment.pr, past=past)
    return outcomes.of_environment(here.follower().until_settled(target, waiting.timeout_s))


def _begun(environment: EnvironmentView, state: EnvironmentState, text: str) -> Outcome:
    known = outcomes.of_environment(environment)
    return replace(known, exit_code=EXIT_READY, state=state, message=text, failure=None)
