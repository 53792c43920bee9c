"""What people may ask of an environment, and with which words they are refused. Pure."""

from __future__ import annotations

import enum
from typing import NoReturn

from temporalio.exceptions import ApplicationError

from workflows.messages import MAX_AHEAD_S, STARTING_ACTIONS, PullRequestEvent


class Again(enum.Enum):
    """What a person asked for that begins a push of the same commit."""

    NO = enum.auto()
    REDEPLOY = enum.auto()
    RETRY = enum.auto()


def refuse(code: str, text: str) -> NoReturn:
    """Refuse an update: the caller gets the code and the text, and the history no event."""
    raise ApplicationError(text, type=code, non_retryable=True)


def check_extension(expires_at: float | None, seconds: float, now: float) -> None:
    """Unix seconds. Refuses what moves the end nowhere, or too far ahead."""
    if expires_at is None:
        refuse("not_ready", "nothing of it counts down yet: its time begins with the first deploy")
    if not seconds > 0:  # Not a number is refused here too.
        refuse("too_long", f"the extension must be longer than 0 s, got {seconds}")
    if max(expires_at, now) + seconds > now + MAX_AHEAD_S:
        days = MAX_AHEAD_S / 86400
        refuse("too_long", f"its end would be more than {days:.0f} days ahead; pin it to keep it for longer")


def check_approval(awaited: str, sha: str) -> None:
    """An approval is for one commit, the one that somebody has looked at."""
    if not awaited:
        refuse("not_waiting", "no commit of this pull request waits for approval")
    if sha != awaited:
        refuse("head_moved", f"the commit that waits is {awaited}, not {sha}; look at it first")


def weightiest(events: list[PullRequestEvent]) -> PullRequestEvent:
    """The one that may bring an ended environment back, else the newest: GitHub is asked what is true anyway."""
    starting = [event for event in events if event.action in STARTING_ACTIONS]
    return (starting or events)[-1]
