"""What people read on GitHub: one comment per pull request, edited in place, and the commit's status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from stagely.comments import MARKER, Problem, Story, comment_text, commit_status
from stagely.db.queries import lives
from stagely.db.queries.lives import LifeRow
from stagely.errors import NotFound
from workflows.messages import EnvironmentRef

STATUS_CONTEXT = "stagely/preview"


class Comments(Protocol):
    """What of GitHub is written here; see stagely.github.GitHub."""

    async def create_comment(self, repo: str, pr: int, text: str) -> int: ...

    async def update_comment(self, repo: str, comment_id: int, text: str) -> None: ...

    async def find_comment(self, repo: str, pr: int, marker: str) -> int | None: ...

    async def set_status(
        self, repo: str, sha: str, state: str, context: str, description: str, target_url: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class GitHubActivities:
    """`log_url` is a template with `{environment}`."""

    engine: AsyncEngine
    github: Comments
    log_url: str

    @activity.defn
    async def publish(self, ref: EnvironmentRef) -> None:
        """Make the comment and the commit status say what the environment's row says now. Again: nothing new."""
        life = await lives.life(self.engine, ref.environment_id)
        story = _story(life, self.log_url)
        await self._comment(life, comment_text(story))
        status = commit_status(story)
        if status is None:
            return
        target = story.urls[0][1] if story.urls else story.log_url
        repo = life.project.repo_full_name
        await self.github.set_status(repo, life.sha, status.state, STATUS_CONTEXT, status.description, target)

    async def _comment(self, life: LifeRow, text: str) -> None:
        repo = life.project.repo_full_name
        # A create whose answer was lost left a comment behind that no row knows: look for our marker first.
        comment_id = life.comment_id or await self.github.find_comment(repo, life.pr, MARKER)
        if comment_id is not None:
            try:
                await self.github.update_comment(repo, comment_id, text)
            except NotFound:
                comment_id = None  # Somebody deleted it: write a new one.
        if comment_id is None:
            comment_id = await self.github.create_comment(repo, life.pr, text)
        if comment_id != life.comment_id:
            await lives.set_comment(self.engine, life.id, comment_id)


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
    )
