"""Domain errors to Temporal failures: the only place that knows both.

Temporal matches failure types by exact name, never by parent class, so the type is the error's stable `code`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.heartbeats import heartbeating
from stagely.errors import StagelyError


class FailureInterceptor(Interceptor):
    """Every activity's StagelyError leaves the worker as an ApplicationError that says whether to retry and when.

    It also heartbeats for every activity that has a heartbeat timeout: that is how soon a killed worker's work is
    taken up by another. A short activity ends before its first beat, so this costs nothing.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Translating(next)


class _Translating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # Any: the SDK's own signature.
        try:
            async with heartbeating():
                return await super().execute_activity(input)
        except StagelyError as error:
            raise to_failure(error) from error
        except ExceptionGroup as group:
            # Side by side work in a TaskGroup: the first domain error stands for all of them.
            ours, _ = group.split(StagelyError)
            if ours is None:
                raise
            raise to_failure(_first(ours)) from group


def _first(group: ExceptionGroup[StagelyError]) -> StagelyError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def to_failure(error: StagelyError) -> ApplicationError:
    """The failure of one domain error; `retry_after_s` (a rate limit's reset, say) delays the next attempt.

    An error that says when to come back is expected, and benign: no worker logs it as a failure, no alert counts it.
    """
    is_expected = error.retryable and error.retry_after_s is not None
    return ApplicationError(
        str(error),
        type=error.code,
        non_retryable=not error.retryable,
        next_retry_delay=timedelta(seconds=error.retry_after_s) if error.retry_after_s is not None else None,
        category=ApplicationErrorCategory.BENIGN if is_expected else ApplicationErrorCategory.UNSPECIFIED,
    )
