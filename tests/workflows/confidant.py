"""A workflow that puts what it is told into everything that Temporal stores. Alone in its file for the sandbox."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

LIMIT = timedelta(seconds=20)


@activity.defn
async def repeat(secret: str) -> str:
    """Heartbeats the secret, and gives it back."""
    activity.heartbeat(secret)
    return secret


@activity.defn
async def fail_with(secret: str) -> None:
    """Its message, details and stack hold the secret. A heartbeat is stored with the failed attempt that follows it."""
    activity.heartbeat({"reached": secret})
    raise ApplicationError(f"refused: {secret}", secret, type="Refused")


@workflow.defn
class Confidant:
    def __init__(self) -> None:
        self._told = ""

    @workflow.run
    async def run(self, secret: str) -> str:
        await workflow.wait_condition(lambda: self._told != "")
        workflow.set_current_details(f"about {secret}")
        await workflow.sleep(0.01, summary=f"timer of {secret}")
        result = await workflow.execute_activity(
            repeat, secret, start_to_close_timeout=LIMIT, heartbeat_timeout=LIMIT, summary=f"activity of {secret}"
        )
        workflow.upsert_memo({"later": secret})
        try:
            await workflow.execute_activity(
                fail_with, secret, start_to_close_timeout=LIMIT, heartbeat_timeout=LIMIT,
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_attempts=2),
            )  # fmt: skip
        except ActivityError as error:
            raise ApplicationError(f"ended with {result}", secret) from error
        return result

    @workflow.signal
    def tell(self, secret: str) -> None:
        self._told = secret

    @workflow.update
    def ask(self, secret: str) -> str:
        return secret
