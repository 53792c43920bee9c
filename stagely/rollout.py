"""Rolling out a new build of Stagely's workflows: its name to Temporal's worker versioning, and making it current."""

from __future__ import annotations

import asyncio

from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

DEPLOYMENT = "stagely"
POLLERS_TIMEOUT_S = 60.0  # For the build's workers to come up and the server to see them poll.
_POLL_S = 0.5


class BuildNotSeen(RuntimeError):
    """No worker of the build polls, so making it current would stop every workflow. An operator must act."""


def deployment_config(build_id: str) -> WorkerDeploymentConfig | None:
    """How a workflow worker of this build registers; None for "", an unversioned worker.

    Runs move to the current build with their next task (AUTO_UPGRADE): an environment lives for days, and nobody keeps
    old builds running for it. The behaviour is never set in `@workflow.defn`: the server refuses every task of an
    unversioned worker that names one.
    """
    if not build_id:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def current_build(client: Client) -> str:
    """The build that gets workflow tasks; "" while unversioned workers do."""
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=DEPLOYMENT)
    try:
        answer = await client.workflow_service.describe_worker_deployment(request)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return ""  # No versioned worker ever polled.
        raise
    return answer.worker_deployment_info.routing_config.current_deployment_version.build_id


async def make_current(client: Client, build_id: str, *, timeout_s: float = POLLERS_TIMEOUT_S) -> str:
    """Give all workflow tasks to this build once its workers poll; "" gives them to unversioned workers.

    Returns the build that was current before, which undoes it. Again: nothing changes.

    Raises:
        BuildNotSeen: no worker of the build polled within `timeout_s`, or it lacks a queue of the current build.
    """
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=DEPLOYMENT, build_id=build_id, identity=client.identity
    )
    try:
        async with asyncio.timeout(timeout_s):
            return await _until_taken(client, request)
    except TimeoutError:
        raise BuildNotSeen(
            f"no worker of build {build_id!r} was seen on every workflow queue within {timeout_s:g} s. "
            f"Start workers with STAGELY_BUILD_ID={build_id} first, then run this again."
        ) from None


async def _until_taken(client: Client, request: SetWorkerDeploymentCurrentVersionRequest) -> str:
    while True:
        try:
            before = await current_build(client)
            await client.workflow_service.set_worker_deployment_current_version(request)
            return before
        except RPCError as error:
            if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                raise
        await asyncio.sleep(_POLL_S)
