"""Time limits and retry policies of activities and children, each with its reason. The only place for `timedelta`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from workflows.messages import CERTIFICATE_QUEUE, CLOUD_QUEUE, CORE_QUEUE


class ActivityOptions(TypedDict, total=False):
    """Keyword arguments of workflow.execute_activity_method."""

    task_queue: str
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


# How soon another worker takes up what a killed one was doing. Below it stays every pause of a healthy event loop.
HEARTBEAT = timedelta(seconds=5)

# Postgres and Redis answer in milliseconds or are away; an outage of ten minutes is ridden out.
STORE = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=HEARTBEAT,
    schedule_to_close_timeout=timedelta(minutes=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=30)),
)

# Clean-up rows and routes must be written however long the outage: no end to retrying.
STORE_FOREVER = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(minutes=1)),
)

# A look with its plan is three calls to GitHub of 25 s each at most; its secondary rate limits last minutes.
GITHUB = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=90),
    heartbeat_timeout=HEARTBEAT,
    schedule_to_close_timeout=timedelta(minutes=30),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=2)),
)


def github(limit_s: float) -> ActivityOptions:
    """GITHUB within so many seconds."""
    return ActivityOptions(**{**GITHUB, "schedule_to_close_timeout": timedelta(seconds=limit_s)})


# The registry API: a merge reads and writes a few manifests; deletions are a few calls per repository. One attempt
# on an overloaded machine was seen to hang where the next took 0.03 s.
REGISTRY = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARTBEAT,
    schedule_to_close_timeout=timedelta(minutes=20),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
)

# A create is one cloud call and a poll for the address. Heartbeats tell within 10 s that the worker died; the retry
# adopts what the dead one made. The outcome must be known before the lease moves on, hence the cancellation type.
CREATE_VM = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=3),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
    cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)


def create_vm(limit_s: float) -> ActivityOptions:
    """CREATE_VM within so many seconds: what a full account or a cloud's outage is waited for."""
    return ActivityOptions(**{**CREATE_VM, "schedule_to_close_timeout": timedelta(seconds=limit_s)})


# A VM that is not destroyed costs money: no limit on attempts, ever.
DESTROY_VM = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5)),
)

# The end of an environment must be written, however long Postgres is away; the activity itself gives up on a registry
# that does not answer.
BURIAL = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(minutes=1),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
)

# Waiting for a build's turn costs nothing while it is a retry: retries are no events. The failure names the position
# and says when to ask again (activities/slots.py); a push that waits for three hours is better told so.
SLOT = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=HEARTBEAT,
    schedule_to_close_timeout=timedelta(hours=3),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=2), backoff_coefficient=1.0, maximum_interval=timedelta(seconds=30)
    ),
)

# A sweep comes again in five minutes: what is away now is asked again then, and does not hold up the rest.
SWEEP = ActivityOptions(
    task_queue=CORE_QUEUE,
    start_to_close_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=4),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
)
SWEEP_CLOUD = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=4),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
)
REAP_VM = ActivityOptions(
    task_queue=CLOUD_QUEUE,
    start_to_close_timeout=timedelta(minutes=5),
    schedule_to_close_timeout=timedelta(minutes=6),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
)


# A local file. No worker serves this queue: the look fails by its limit, and an operator sees a red run.
INSPECT_CERTIFICATE = ActivityOptions(
    task_queue=CERTIFICATE_QUEUE,
    start_to_close_timeout=timedelta(seconds=15),
    schedule_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1)),
)

# Limited by attempts, not by time: as long as the authority says (days, at times) is waited, and nothing overtakes it.
PLACE_ORDER = ActivityOptions(
    task_queue=CERTIFICATE_QUEUE,
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=5), maximum_interval=timedelta(minutes=10), maximum_attempts=8
    ),
)
FINISH_ORDER = PLACE_ORDER

# Above VISIBLE_LIMIT_S of the activity, which says what was not seen and where.
CHALLENGES = ActivityOptions(
    task_queue=CERTIFICATE_QUEUE,
    start_to_close_timeout=timedelta(minutes=12),
    schedule_to_close_timeout=timedelta(minutes=30),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
)
# What is left over is noted in the folder: the next look has as long again.
WITHDRAW_CHALLENGES = ActivityOptions(
    task_queue=CERTIFICATE_QUEUE,
    start_to_close_timeout=timedelta(minutes=3),
    schedule_to_close_timeout=timedelta(minutes=30),
    heartbeat_timeout=HEARTBEAT,
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1)),
)


@dataclass(frozen=True, slots=True)
class Margins:
    """Seconds added to limits that somebody else keeps as well, so that theirs is the one that is reported."""

    result_s: float = 60.0  # The agent's own build and health limits end first and say why.


MARGINS = Margins()
BUILD_ATTEMPTS = 2  # A lost builder is replaced once; a second loss is reported.
DEPLOY_ATTEMPTS = 2  # A preview VM that is lost during a deploy is replaced once.
PREVIEW_REPLACEMENTS = 3  # Of one commit's preview VM; a fourth loss is no accident, and each one costs money.
