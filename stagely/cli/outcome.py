"""What a command found out: for people on a terminal, as one JSON object for programs, and as an exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from stagely.cli.bodies import EnvironmentView, FailureView
from stagely.cli.refusal import EXIT_FAILED, EXIT_READY, EXIT_REFUSED, EXIT_WAITS, CommandFailed
from stagely.states import EnvironmentState

REFUSED = "refused"
PLAN_STEP = "plan"  # A failure before anything was built: the repository itself cannot be taken.


@dataclass(frozen=True, slots=True)
class Outcome:
    """`pr` None when no pull request was opened. `urls`: service to URL, the main one first."""

    exit_code: int
    state: str
    message: str
    environment: str = ""
    pr: int | None = None
    repo: str = ""
    commit: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    failure: FailureView | None = None
    expires_at: float | None = None
    is_pinned: bool = False

    def as_json(self) -> dict[str, object]:
        """The keys that programs can rely on."""
        return {
            "environment": self.environment,
            "pr": self.pr,
            "state": self.state,
            "urls": self.urls,
            "message": self.message,
            "phases": self.phases,
            "expires_at": self.expires_at,
            "is_pinned": self.is_pinned,
        }


def of_environment(environment: EnvironmentView, *, good: str = EnvironmentState.READY) -> Outcome:
    """The outcome of a command that wanted the environment to become `good`."""
    return Outcome(
        exit_code=_exit_code(environment, good),
        state=environment.state,
        message=environment.message,
        environment=environment.id,
        pr=environment.pr,
        repo=environment.repo,
        commit=environment.commit,
        urls=dict(environment.urls),
        phases=dict(environment.phases),
        failure=environment.failure,
        expires_at=environment.expires_at,
        is_pinned=environment.is_pinned,
    )


def of_error(error: CommandFailed, pr: int | None = None) -> Outcome:
    """The outcome of a command that could not be done."""
    state = REFUSED if error.exit_code == EXIT_REFUSED else "failed"
    return Outcome(exit_code=error.exit_code, state=state, message=str(error), pr=pr)


def failure_lines(outcome: Outcome, next_command: str) -> list[str]:
    """Why it is not ready, for a person: which target or service, its exit code, its last lines, and what to do.

    `next_command` shows the whole log, or approves a commit that waits for that.
    """
    if outcome.state == EnvironmentState.AWAITING_APPROVAL:  # A failure that is still there is of an older commit.
        return [outcome.message, "", f"Look at commit {outcome.commit}, then let it run: {next_command}"]
    failure = outcome.failure
    if failure is None:
        return [outcome.message]
    if failure.step == PLAN_STEP:  # The message begins with the file and its line; a step's name would hide it.
        return [failure.message]
    is_said = failure.exit_code is None or f"exit code {failure.exit_code}" in failure.message
    code = "" if is_said else f" (exit code {failure.exit_code})"
    where = f"{failure.step} {failure.subject}".strip()
    lines = [f"{where}: {failure.message}{code}"]
    if failure.tail:
        lines += ["", *(f"    {line}" for line in failure.tail)]
    if next_command:
        lines += ["", f"The whole log: {next_command}"]
    return lines


def _exit_code(environment: EnvironmentView, good: str) -> int:
    if environment.state == good:
        return EXIT_READY
    if environment.state == EnvironmentState.AWAITING_APPROVAL:
        return EXIT_WAITS
    refused = environment.failure is not None and environment.failure.step == PLAN_STEP
    return EXIT_REFUSED if refused else EXIT_FAILED
