"""The one comment on a pull request, edited in place, and the commit status beside it. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stagely.states import GONE, EnvironmentState

MARKER = "<!-- stagely -->"
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What failed: `subject` is a build target or service, `tail` its last lines."""

    step: str
    message: str
    subject: str = ""
    exit_code: int | None = None
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """All that a comment tells. `urls`: (service, url), the main one first; `log_url`: where a person reads more.

    `expires_at` (Unix seconds): when the preview's time ends; `warning`: "", early or last.
    """

    state: EnvironmentState
    message: str
    sha: str
    urls: Sequence[tuple[str, str]]
    log_url: str
    problem: Problem | None = None
    expires_at: float | None = None
    is_pinned: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """GitHub's commit status: `state` is pending, success, failure or error; `description` at most 140 characters."""

    state: str
    description: str


def comment_text(story: Story) -> str:
    """The comment's Markdown."""
    lines = [MARKER, _headline(story), "", f"Commit `{story.sha[:12]}`."]
    if story.state is EnvironmentState.READY and len(story.urls) > 1:
        lines += ["", *[f"- {service}: {url}" for service, url in story.urls]]
    if story.state is EnvironmentState.READY:
        lines += _until(story)
    if story.state is EnvironmentState.FAILED and story.problem is not None:
        lines += ["", *_problem_lines(story.problem)]
    return "\n".join(lines) + "\n"


def _until(story: Story) -> list[str]:
    """Until when the preview stays, and what to do about it when that is soon."""
    if story.is_pinned:
        return ["", "Pinned: it stays until the pull request closes."]
    if story.expires_at is None:
        return []
    until = datetime.fromtimestamp(story.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not story.warning:
        return ["", f"It stays until {until}."]
    mark = "⏰ **Last hour.** " if story.warning == "last" else "⏰ "
    return ["", f"{mark}It is taken down at {until}. A push, `stagely extend` or `stagely pin` keeps it."]


def commit_status(story: Story) -> CommitStatus | None:
    """The status of the story's commit; None while and after the preview goes: what the commit was, it stays."""
    if story.state is EnvironmentState.TERMINATING or story.state in GONE:
        return None
    state = {EnvironmentState.READY: "success", EnvironmentState.FAILED: "failure"}.get(story.state, "pending")
    return CommitStatus(state, f"{story.state}: {' '.join(story.message.split())}"[:140])


def _headline(story: Story) -> str:
    match story.state:
        case EnvironmentState.READY:
            return f"✅ Preview ready: {story.urls[0][1] if story.urls else ''}"
        case EnvironmentState.FAILED:
            return f"❌ {_what_failed(story)} [View Logs]({story.log_url})"
        case EnvironmentState.AWAITING_APPROVAL:
            return f"🔒 Waiting for approval: {story.message}. `stagely approve` lets it run."
        case EnvironmentState.TERMINATING:
            return "🧹 Taking the preview down"
        case EnvironmentState.TERMINATED | EnvironmentState.REAPED:
            return f"🧹 Preview gone: {story.message}"
        case _:
            return f"⏳ Preview on its way: {story.message}"


def _what_failed(story: Story) -> str:
    step = story.problem.step if story.problem else ""
    if step == "plan":
        return "Not acceptable"
    return "Build failed" if step in ("clone", "build", "push", "merge") else "Deployment failed"


def _problem_lines(problem: Problem) -> list[str]:
    where = f"**{problem.subject}**: " if problem.subject else ""
    code = f" (exit code {problem.exit_code})" if problem.exit_code is not None else ""
    lines = [f"{where}{problem.message}{code}"]
    if problem.tail:
        fence = "`" * max(3, max(_run_of_ticks(line) for line in problem.tail) + 1)
        lines += ["", fence, *problem.tail[-_TAIL_LINES:], fence]
    return lines


def _run_of_ticks(line: str) -> int:
    """The longest run of backticks: the fence must be longer, or a log line could end the code block."""
    longest = current = 0
    for character in line:
        current = current + 1 if character == "`" else 0
        longest = max(longest, current)
    return longest
