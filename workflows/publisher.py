"""Keeps the pull request's comment true without holding anybody up.

The activity reads the environment's row when it runs, so the last one wins and an older one is never needed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.github import GitHubActivities

from workflows.fanout import start
from workflows.messages import EnvironmentRef
from workflows.options import GITHUB


@dataclass(slots=True)
class Publisher:
    """One comment is written at a time; what changes meanwhile is written once more afterwards."""

    _wanted: str = ""
    _task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def publish(self, environment_id: str) -> None:
        """The row has changed: make the comment say so, soon."""
        self._wanted = environment_id
        if not self.is_busy:
            self._task = start(self._run())

    async def _run(self) -> None:
        while self._wanted:
            ref, self._wanted = EnvironmentRef(self._wanted), ""
            try:
                await workflow.execute_activity_method(GitHubActivities.publish, ref, summary="comment", **GITHUB)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                workflow.logger.warning("the comment could not be written", extra={"error_code": str(error.cause)})
