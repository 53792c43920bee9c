"""Namespaces of the session's Temporal server: what one test sets there, no other test sees."""

from __future__ import annotations

import asyncio

from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from stagely.ids import mint
from tests.encryption import CONVERTER

DEADLINE_S = 30.0
RETENTION_S = 24 * 3600  # The shortest that the server takes.


async def fresh_namespace(client: Client) -> Client:
    """A client of a new namespace on this client's server, once that answers for it."""
    request = RegisterNamespaceRequest(namespace=mint("ns"))
    request.workflow_execution_retention_period.FromSeconds(RETENTION_S)
    await client.workflow_service.register_namespace(request)
    made = await Client.connect(
        client.service_client.config.target_host, namespace=request.namespace, data_converter=CONVERTER
    )
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await made.count_workflows("WorkflowId = '-'")
                return made
            except RPCError:
                await asyncio.sleep(0.05)
