"""The main job by hand: up, push, close, ls, logs. Each takes what the person said and gives an Outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stagely.cli import installation as installations
from stagely.cli import outcome as outcomes
from stagely.cli import pulls as pull_requests
from stagely.cli import repository
from stagely.cli.api import ApiClient
from stagely.cli.asking import action, ask
from stagely.cli.bodies import EnvironmentView, LogLineView
from stagely.cli.follow import Follower, Past, Target
from stagely.cli.installation import Installation
from stagely.cli.outcome import Outcome
from stagely.cli.progress import Progress
from stagely.cli.pulls import Pulls, Pushed
from stagely.cli.refusal import EXIT_READY, NotAcceptable, Refused
from stagely.dev.forge.client import ForgeClient
from stagely.states import GONE, EnvironmentState

DEFAULT_TIMEOUT_S = 15 * 60.0  # Two cold builds on a small machine take minutes, never this long.
_NOTHING_TO_RETRY = ("nothing_failed", "conflict")  # It goes on already, or its workflow was terminated.
CLOSE_TIMEOUT_S = 5 * 60.0  # Removing VMs and proving them gone takes seconds here, minutes in some clouds.


@dataclass(frozen=True, slots=True)
class Session:
    """The installation a command talks to, and the clients for it."""

    installation: Installation
    api: ApiClient
    pulls: Pulls
    progress: Progress

    def follower(self) -> Follower:
        return Follower(self.api, self.progress)

    def next_command(self, outcome: Outcome) -> str:
        """What shows the whole log, or approves the commit that waits for that.

        The repository's name is said only where the number alone is not enough.
        """
        same_number = {environment.repo for environment in self.api.environments(pr=outcome.pr, gone_too=True)}
        what = f"{outcome.pr}" if len(same_number) == 1 else f"{outcome.repo}#{outcome.pr}"
        if outcome.state == EnvironmentState.AWAITING_APPROVAL:
            return self.approve_command(what, outcome.commit)
        return f"stagely logs {what}{self.installation.option}"

    def approve_command(self, what: str, commit: str) -> str:
        return f"stagely approve {what} {commit[:12]}{self.installation.option}"


@contextmanager
def session(state: Path, progress: Progress) -> Iterator[Session]:
    """Raises NotAcceptable when no `stagely dev` runs on `state`."""
    found = installations.find(state)
    with ApiClient(found.api, found.token) as api, ForgeClient(found.forge, found.github_token) as forge:
        try:
            yield Session(found, api, Pulls(found, api, forge), progress)
        finally:
            progress.close()


def up(
    here: Session, path: Path, number: int | None, *, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Outcome:
    """Open a pull request for the commit at `path`, or push to the one that is open, and wait for its preview.

    A commit that failed there before goes on from the step at which it failed; one whose preview was stopped or whose
    time was over is deployed again.
    """
    checkout = _look(here, path)
    before = here.api.environments(gone_too=True)
    pushed = here.pulls.open(checkout, number)
    return _follow(here, pushed, before, wait=wait, timeout_s=timeout_s)


def push(
    here: Session, path: Path, number: int | None, *, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Outcome:
    """Push the commit at `path` to its open pull request and wait for the new preview, as `up` does."""
    checkout = _look(here, path)
    before = here.api.environments(gone_too=True)
    pushed = here.pulls.push(checkout, number)
    return _follow(here, pushed, before, wait=wait, timeout_s=timeout_s)


def close(
    here: Session, what: str, number: int | None, *, wait: bool = True, timeout_s: float = CLOSE_TIMEOUT_S
) -> Outcome:
    """Close a pull request, by its number or its repository's path, and wait until nothing of it is left."""
    repo, pr = _meant(here, what, number)
    here.pulls.close(repo, pr)
    here.progress.headline(f"closed pull request {pr} of {repo}")
    if not wait:
        return Outcome(EXIT_READY, EnvironmentState.TERMINATING, "closed; it is being removed", pr=pr)
    target = Target(here.pulls.project_id(repo), pr)
    last = here.follower().until_gone(target, timeout_s)
    if last is None:
        return Outcome(EXIT_READY, EnvironmentState.TERMINATED, "nothing ran for it", pr=pr)
    return outcomes.of_environment(last, good=last.state)


def ls(here: Session, *, gone_too: bool = False) -> list[EnvironmentView]:
    """Environments, newest first."""
    return here.api.environments(gone_too=gone_too)


def logs(here: Session, what: str, *, follow: bool) -> Iterator[LogLineView]:
    """The log of a pull request's environment; of its last one when it is gone. `what`: N, REPOSITORY#N or PATH."""
    found = named(here, what)
    yield from here.api.logs(found.id, follow=follow and found.state not in GONE)


def table(environments: list[EnvironmentView], now: float) -> list[str]:
    """One line per environment under a line of titles."""
    rows = [("PR", "REPOSITORY", "STATE", "SINCE", "UNTIL", "COMMIT", "URL")]
    rows += [_row(e, now) for e in environments]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def age(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _row(e: EnvironmentView, now: float) -> tuple[str, str, str, str, str, str, str]:
    url = next(iter(e.urls.values()), "-")
    return (str(e.pr), e.repo, e.state, age(now - e.since), _until(e, now), e.commit[:12] or "-", url)


def _until(e: EnvironmentView, now: float) -> str:
    """How long the preview stays."""
    if e.state in GONE:
        return "-"
    if e.is_pinned:
        return "pinned"
    return "-" if e.expires_at is None else age(e.expires_at - now)


def _look(here: Session, path: Path) -> repository.Checkout:
    checkout = repository.look(path)
    if note := repository.not_deployed(checkout):
        here.progress.say(note)
    return checkout


def _follow(here: Session, pushed: Pushed, before: list[EnvironmentView], *, wait: bool, timeout_s: float) -> Outcome:
    verb = "opened" if pushed.is_new else "pushed to"
    here.progress.headline(f"{verb} pull request {pushed.pr} of {pushed.repo} at {pushed.sha[:12]}  {pushed.page}")
    target = _again(here, pushed, before)
    if not wait:
        return Outcome(EXIT_READY, EnvironmentState.QUEUED, "the pull request is open; not waiting", pr=pushed.pr)
    return outcomes.of_environment(here.follower().until_settled(target, timeout_s))


def _again(here: Session, pushed: Pushed, before: list[EnvironmentView]) -> Target:
    """What to wait for. The forge says nothing of a commit that it had before, so we ask for what ended badly there."""
    target = Target(pushed.project, pushed.pr, pushed.sha)
    last = next((e for e in before if e.project_id == pushed.project and e.pr == pushed.pr), None)
    if last is None or pushed.is_new or last.commit != pushed.sha:
        return target
    if last.state == EnvironmentState.FAILED:
        here.progress.say(f"commit {pushed.sha[:12]} failed before; trying again from the step at which it failed")
        _retry(here, last)
    elif last.state in GONE:
        here.progress.say(f"the preview of commit {pushed.sha[:12]} has ended ({last.state}); deploying it again")
        ask(here.api, last, action("redeploy"))
    else:
        return target
    return replace(target, past=Past.of(last))


def _retry(here: Session, last: EnvironmentView) -> None:
    """From the failed step on; where its workflow knows of no failure, from the beginning."""
    try:
        ask(here.api, last, action("retry"))
    except NotAcceptable as error:
        refusal = error.__cause__
        if not isinstance(refusal, Refused) or refusal.code not in _NOTHING_TO_RETRY:
            raise
        ask(here.api, last, action("redeploy"))


def _meant(here: Session, what: str, number: int | None) -> tuple[str, int]:
    """Repository and number that `close` means: a number among the living, or a path."""
    if what.isdigit() and not Path(what).is_dir():
        found = pull_requests.living(here.api.environments(), int(what))
        return found.repo, found.pr
    if not Path(what).is_dir():
        raise NotAcceptable(f"{what} is neither a folder nor the number of a pull request.")
    repo, pull = here.pulls.open_of(repository.look(Path(what)), number)
    return repo, pull.number


def named(here: Session, what: str) -> EnvironmentView:
    """The environment of a pull request, its last one when it is gone. `what`: N, REPOSITORY#N or PATH."""
    repo, number = _reference(here, what)
    alive = here.api.environments(pr=number)
    known = alive or _newest(here.api.environments(pr=number, gone_too=True))
    return pull_requests.living([e for e in known if e.repo == repo or not repo], number)


def _reference(here: Session, what: str) -> tuple[str, int]:
    """Repository ("" for any) and number that `what` means."""
    repo, _, number = what.rpartition("#")
    if number.isdigit() and (repo or not Path(what).is_dir()):
        return (repo if "/" in repo or not repo else f"{pull_requests.OWNER}/{repo}"), int(number)
    repo, pull = here.pulls.open_of(repository.look(Path(what)), None)
    return repo, pull.number


def _newest(environments: list[EnvironmentView]) -> list[EnvironmentView]:
    """The newest life of each repository's pull request."""
    newest: dict[str, EnvironmentView] = {}
    for environment in sorted(environments, key=lambda e: e.created_at):
        newest[environment.repo] = environment
    return list(newest.values())


def wall_clock() -> float:
    """Unix seconds now; ages in lists are counted from it."""
    return time.time()
