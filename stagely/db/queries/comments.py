"""The outbox of pull request comments: what is to be published, by whom, and when to try again.

One row per pull request, so that its environments (a reopened one has several) never publish side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.tables import environments, pull_request_comments

ERROR_LENGTH = 500


@dataclass(frozen=True, slots=True)
class DueComment:
    """`wanted` is the change that will be published; `environment_id` the pull request's newest environment."""

    project_id: str
    pr: int
    environment_id: str
    comment_id: int | None
    wanted: int
    attempts: int


async def want(db: AsyncConnection, environment_id: str) -> None:
    """The environment has changed: its pull request's comment must say so. In the caller's transaction."""
    await db.execute(_WANT, {"environment_id": environment_id})


async def claim(engine: AsyncEngine, lease_s: float) -> DueComment | None:
    """The comment that waits longest, for this caller alone during `lease_s` seconds; None: nothing is due."""
    async with engine.begin() as db:
        row = (await db.execute(_CLAIM, {"lease_s": lease_s})).one_or_none()
        if row is None:
            return None
        newest = (
            select(environments.c.id)
            .where(environments.c.project_id == row.project_id, environments.c.pr_number == row.pr_number)
            .order_by(environments.c.created_at.desc(), environments.c.id.desc())
            .limit(1)
        )
        environment_id = (await db.execute(newest)).scalar_one()
    return DueComment(row.project_id, row.pr_number, environment_id, row.comment_id, row.wanted, row.attempts)


async def note_comment(engine: AsyncEngine, due: DueComment, comment_id: int) -> None:
    """The comment exists under this id."""
    await _set(engine, due, {"comment_id": comment_id})


async def note_published(engine: AsyncEngine, due: DueComment) -> None:
    """The comment says what was wanted. What was wanted since is due at once."""
    async with engine.begin() as db:
        await db.execute(_PUBLISHED, {"project_id": due.project_id, "pr": due.pr, "wanted": due.wanted})


async def note_failed(engine: AsyncEngine, due: DueComment, error: str, retry_in_s: float) -> None:
    """It could not be published; try again in so many seconds."""
    async with engine.begin() as db:
        values = {"error": error[:ERROR_LENGTH], "retry_in_s": retry_in_s}
        await db.execute(_FAILED, {"project_id": due.project_id, "pr": due.pr, **values})


async def give_up(engine: AsyncEngine, due: DueComment, error: str) -> None:
    """Nothing but a change of the environment makes sense of another try."""
    await _set(engine, due, {"done": due.wanted, "last_error": error[:ERROR_LENGTH], "attempts": 0})


async def _set(engine: AsyncEngine, due: DueComment, values: dict[str, object]) -> None:
    c = pull_request_comments.c
    async with engine.begin() as db:
        where = (c.project_id == due.project_id, c.pr_number == due.pr)
        await db.execute(update(pull_request_comments).where(*where).values(**values))


_WANT = text("""
INSERT INTO pull_request_comments AS c
       (project_id, pr_number, team_id, wanted, done, attempts, last_error, due_at)
SELECT project_id, pr_number, team_id, 1, 0, 0, '', now() FROM environments WHERE id = :environment_id
ON CONFLICT (project_id, pr_number) DO UPDATE
SET wanted = c.wanted + 1, due_at = CASE WHEN c.wanted > c.done THEN c.due_at ELSE now() END
""")

_CLAIM = text("""
UPDATE pull_request_comments SET due_at = now() + make_interval(secs => :lease_s)
WHERE (project_id, pr_number) IN (
    SELECT project_id, pr_number FROM pull_request_comments WHERE wanted > done AND due_at <= now()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING project_id, pr_number, comment_id, wanted, attempts
""")

_PUBLISHED = text("""
UPDATE pull_request_comments SET done = :wanted, attempts = 0, last_error = '', due_at = now()
WHERE project_id = :project_id AND pr_number = :pr AND done < :wanted
""")

_FAILED = text("""
UPDATE pull_request_comments
SET attempts = attempts + 1, last_error = :error, due_at = now() + make_interval(secs => :retry_in_s)
WHERE project_id = :project_id AND pr_number = :pr
""")
