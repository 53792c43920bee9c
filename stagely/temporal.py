"""The one way to Temporal: every client of ours comes from here, so that all speak the same data format."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from stagely.settings import Settings

CALL_TIMEOUT_S = (
    5.0  # Around every client call: the SDK's own limit counts per attempt (17 s were seen with rpc_timeout=2 s).
)


async def connect(settings: Settings, *, lazy: bool = True) -> Client:
    """A client of the configured namespace. `lazy` lets the api and gateway start while Temporal is away."""
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=pydantic_data_converter,
        lazy=lazy,
    )
