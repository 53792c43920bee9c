"""Time limits and retry policies of activities and children, each with its reason. The only place for `timedelta`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from workflows.messages import CLOUD_QUEUE, CORE_QUEUE


class ActivityOptions(TypedDict, total=False):
    """Keyword arguments of workflow.execute_activity_method."""

    task_queue: str
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


# Postgres and Redis answer in milliseconds or are away; an outage of ten minutes is ridden out.
STORE = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    schedule_to_close_timeout=timedelta(minutes=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=30)),
)

# Clean-up rows and routes must be written however long the outage: no end to retrying.
STORE_FOREVER = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(minutes=1)),
)

# GitHub answers within 10 s or not at all; its secondary rate limits last minutes.
GITHUB = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=30),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=2)),
)

# The registry API: a merge reads and writes a few manifests; deletions are a few calls per repository. One attempt
# on an overloaded machine was seen to hang where the next took 0.03 s.
REGISTRY = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=20),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
)

# A create is one cloud call and a poll for the address. Heartbeats tell within 10 s that the worker died; the retry
# adopts what the dead one made. The outcome must be known before the lease moves on, hence the cancellation type. It
# ends before the owner gives the boot up (300 s), so that the owner hears the cloud's reason and not just silence.
CREATE_VM = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=3),
    schedule_to_close_timeout=timedelta(minutes=4),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
    cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)

# A VM that is not destroyed costs money: no limit on attempts, ever.
DESTROY_VM = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5)),
)


@dataclass(frozen=True, slots=True)
class Margins:
    """Seconds added to limits that somebody else keeps as well, so that theirs is the one that is reported."""

    result_s: float = 60.0  # The agent's own build and health limits end first and say why.


MARGINS = Margins()
BUILD_ATTEMPTS = 2  # A lost builder is replaced once; a second loss is reported.
DEPLOY_ATTEMPTS = 2  # A preview VM that is lost during a deploy is replaced once.
PREVIEW_REPLACEMENTS = 3  # Of one commit's preview VM; a fourth loss is no accident, and each one costs money.
