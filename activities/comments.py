"""What people read on GitHub: one comment per pull request, edited in place, and the commit's status.

No activity but a loop over an outbox: `record` writes the intent in its own transaction, and this posts it. So a
GitHub that is slow or away holds nobody up, a comment is never lost, and it costs Temporal no events
(docs/adr/0003-comments-by-outbox.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.comments import MARKER, Problem, Story, comment_text, commit_status
from stagely.db.queries import comments, lives
from stagely.db.queries.comments import DueComment
from stagely.db.queries.lives import LifeRow
from stagely.errors import GitHubUnavailable, NotFound, StagelyError

STATUS_CONTEXT = "stagely/preview"
POLL_S = 0.5  # One indexed query; people read comments, and half a second is soon.
CLAIM_S = 120.0  # Longer than the few calls of one comment may take (25 s each): a killed worker's claim ends by then.
FIRST_RETRY_S = 2.0
LAST_RETRY_S = 300.0
AT_ONCE = 4  # GitHub docs, best practices: avoid concurrent requests; a comment is two to four.

log = structlog.get_logger()


class Comments(Protocol):
    """What of GitHub is written here; see stagely.github.GitHub."""

    async def create_comment(self, repo: str, pr: int, text: str) -> int: ...

    async def update_comment(self, repo: str, comment_id: int, text: str) -> None: ...

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None: ...

    async def set_status(
        self, repo: str, sha: str, state: str, context: str, description: str, target_url: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class CommentPublisher:
    """`log_url` is a template with `{environment}`. Any number of publishers may run: each claims what it posts."""

    engine: AsyncEngine
    github: Comments
    log_url: str
    poll_s: float = POLL_S
    claim_s: float = CLAIM_S

    async def run(self) -> None:
        """Publish what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._run_one())

    async def publish_due(self) -> bool:
        """Publish one comment. False: none is due."""
        due = await comments.claim(self.engine, self.claim_s)
        if due is None:
            return False
        try:
            await self._publish(due)
        except StagelyError as error:
            await self._note_failure(due, error)
        except (SQLAlchemyError, OSError):
            raise
        except Exception as error:  # A bug with one comment must not end the others, nor the worker they run in.
            log.exception("comment failed", environment_id=due.environment_id, error_code="internal")
            await self._note_failure(due, GitHubUnavailable(f"{type(error).__name__}: {error}"))
        else:
            await comments.note_published(self.engine, due)
        return True

    async def _run_one(self) -> None:
        while True:
            try:
                found = await self.publish_due()
            except (SQLAlchemyError, OSError) as error:
                log.warning("comments wait for the database", error_code="database_away", reason=str(error)[:200])
                found = False
            if not found:
                await asyncio.sleep(self.poll_s)

    async def _publish(self, due: DueComment) -> None:
        life = await lives.life(self.engine, due.environment_id)
        story = _story(life, self.log_url)
        await self._comment(life, due, comment_text(story))
        status = commit_status(story)
        if status is None:
            return
        target = story.urls[0][1] if story.urls else story.log_url
        repo = life.project.repo_full_name
        await self.github.set_status(repo, life.sha, status.state, STATUS_CONTEXT, status.description, target)

    async def _comment(self, life: LifeRow, due: DueComment, text: str) -> None:
        repo = life.project.repo_full_name
        # A create whose answer was lost left a comment behind that no row knows: look for our marker first.
        comment_id = due.comment_id or await self.github.find_comment(repo, life.pr, MARKER)
        if comment_id is not None:
            try:
                await self.github.update_comment(repo, comment_id, text)
            except NotFound:
                comment_id = None  # Somebody deleted it: write a new one.
        if comment_id is None:
            comment_id = await self.github.create_comment(repo, life.pr, text)
        if comment_id != due.comment_id:
            await comments.note_comment(self.engine, due, comment_id)

    async def _note_failure(self, due: DueComment, error: StagelyError) -> None:
        """Again later, at the time GitHub named if it did. What a person must mend first waits for the next change."""
        event = log.bind(environment_id=due.environment_id, pr=due.pr, error_code=error.code, attempt=due.attempts + 1)
        if not error.retryable:
            event.error("comment refused", reason=str(error))
            await comments.give_up(self.engine, due, str(error))
            return
        retry_in_s = error.retry_after_s or min(LAST_RETRY_S, FIRST_RETRY_S * 2**due.attempts)
        event.warning("comment not written yet", reason=str(error), retry_in_s=retry_in_s)
        await comments.note_failed(self.engine, due, str(error), retry_in_s)


def _story(life: LifeRow, log_url: str) -> Story:
    failure = life.failure
    problem = None
    if failure is not None:
        problem = Problem(
            step=failure["step"],
            message=failure["message"],
            subject=failure.get("subject", ""),
            exit_code=failure.get("exit_code"),
            tail=tuple(failure.get("tail", ())),
        )
    return Story(
        state=life.state,
        message=life.message,
        sha=life.sha,
        urls=[(e["service"], e["url"]) for e in life.exposes],
        log_url=log_url.format(environment=life.id),
        problem=problem,
        expires_at=life.expires_at,
        is_pinned=life.is_pinned,
        warning=life.warning,
    )
