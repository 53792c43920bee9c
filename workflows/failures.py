"""Temporal's failures as people read them."""

from __future__ import annotations

from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

from workflows.messages import FailureReport


def innermost(error: ActivityError | ChildWorkflowError) -> BaseException:
    """Why it failed: the last attempt's reason, also when the time for attempts ran out."""
    cause: BaseException = error.cause or error
    while not isinstance(cause, ApplicationError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def reason(error: ActivityError | ChildWorkflowError) -> str:
    """What the activity or child said, without the type that Temporal puts before it."""
    cause = innermost(error)
    return cause.message if isinstance(cause, ApplicationError) else str(cause)


def report_of(step: str, error: ActivityError | ChildWorkflowError, *, otherwise: str = "") -> FailureReport:
    """For the person who pushed; `code` is the domain error's, `otherwise` when there is none."""
    cause = innermost(error)
    code = cause.type if isinstance(cause, ApplicationError) else None
    return FailureReport(step, reason(error), code=code or otherwise)
