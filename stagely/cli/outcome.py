"""What a command found out: for people on a terminal, as one JSON object for programs, and as an exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from stagely.cli.bodies import EnvironmentView, FailureView
from stagely.cli.refusal import EXIT_FAILED, EXIT_READY, EXIT_REFUSED, CommandFailed
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

    def as_json(self) -> dict[str, object]:
        """The keys that programs can rely on."""
        return {
            "environment": self.environment,
            "pr": self.pr,
            "state": self.state,
            "urls": self.urls,
            "message": self.message,
            "phases": self.phases,
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
    )


def of_error(error: CommandFailed, pr: int | None = None) -> Outcome:
    """The outcome of a command that could not be done."""
    state = REFUSED if error.exit_code == EXIT_REFUSED else "failed"
    return Outcome(exit_code=error.exit_code, state=state, message=str(error), pr=pr)


def failure_lines(outcome: Outcome, log_command: str) -> list[str]:
    """Why it failed, for a person: which target or service, its exit code, its last lines, where the rest is."""
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
    if log_command:
        lines += ["", f"The whole log: {log_command}"]
    return lines


def _exit_code(environment: EnvironmentView, good: str) -> int:
    if environment.state == good:
        return EXIT_READY
    refused = environment.failure is not None and environment.failure.step == PLAN_STEP
    return EXIT_REFUSED if refused else EXIT_FAILED
