"""The one way to Temporal: every client of ours comes from here, so that all speak the same encrypted data format."""

from __future__ import annotations

import dataclasses
import logging
import os

from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RetryConfig

from stagely.codec import EncryptionCodec
from stagely.keyring import KeyRing, open_keyring
from stagely.settings import Settings

CALL_TIMEOUT_S = (
    5.0  # Around every client call: the SDK's own limit counts per attempt (17 s were seen with rpc_timeout=2 s).
)


_JSON = PydanticJSONPlainPayloadConverter()


class SharedPayloadConverter(CompositePayloadConverter):
    """Pydantic JSON whose type adapters all runs of a process share.

    The SDK makes a payload converter for every run, and an adapter costs milliseconds: with one cache a worker needs a
    fifth less CPU per environment, and a fifth less memory for those at rest (docs/benchmarks.md).
    """

    def __init__(self) -> None:
        others = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(*(_JSON if isinstance(one, JSONPlainPayloadConverter) else one for one in others))


def data_converter(keys: KeyRing) -> DataConverter:
    """Pydantic JSON, encrypted; failures' messages and stacks too. For clients, workers and replays."""
    return dataclasses.replace(
        pydantic_data_converter,
        payload_converter_class=SharedPayloadConverter,
        payload_codec=EncryptionCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def replay_converter(client: Client) -> DataConverter:
    """The client's converter for replays: it reads what was encrypted and says in clear what breaks."""
    return dataclasses.replace(client.data_converter, failure_converter_class=DefaultFailureConverter)


async def connect(settings: Settings, *, lazy: bool = True, retry_for_s: float | None = None) -> Client:
    """A client of the configured namespace. `lazy` lets the api and gateway start while Temporal is away.

    `retry_for_s`: how long the SDK tries a refused call again by itself before it says why; None is its default, 10 s.

    Raises:
        KeyFileInvalid: the encryption key file is missing or malformed.
        RuntimeError: TEMPORAL_* variables make no sense, or (not lazy) the server does not answer.
    """
    keys = open_keyring(settings.encryption_key_file)
    retries = None if retry_for_s is None else RetryConfig(max_elapsed_time_millis=round(retry_for_s * 1000))
    return await Client.connect(
        **_connection(settings), data_converter=data_converter(keys), lazy=lazy, retry_config=retries
    )


def _connection(settings: Settings) -> ClientConnectConfig:
    """What TEMPORAL_* variables say of API key and TLS; address and namespace as the settings have them.

    A profile file counts only when TEMPORAL_CONFIG_FILE names it. The SDK would else read the one in the home folder,
    and a developer's API key of another cluster would travel to ours.
    """
    # An empty TEMPORAL_API_KEY, as a Compose file gives one, would switch TLS on.
    given = {name: value for name, value in os.environ.items() if value}
    try:
        options = ClientConfig.load_client_connect_config(
            disable_file="TEMPORAL_CONFIG_FILE" not in given, override_env_vars=given
        )
    except (OSError, ValueError, RuntimeError) as error:
        names = ", ".join(sorted(name for name in given if name.startswith("TEMPORAL_")))
        raise RuntimeError(f"the variables of the Temporal client ({names}) cannot be used: {error}") from error
    is_given = settings.model_fields_set
    if "temporal_address" in is_given or not options.get("target_host"):
        options["target_host"] = settings.temporal_address
    if "temporal_namespace" in is_given or not options.get("namespace"):
        options["namespace"] = settings.temporal_namespace
    return options


def set_up_runtime(metrics_listen: str, role: str) -> None:
    """Prepare the SDK of this process, before its first client. `metrics_listen`: host:port of its metrics, or "".

    Durations are seconds and names end in their unit. The SDK's core would write its warnings to stdout as plain text;
    its errors come out through our own log instead. Raises RuntimeError when the address cannot be listened on.
    """
    metrics = PrometheusConfig(
        bind_address=metrics_listen, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    telemetry = TelemetryConfig(
        logging=LoggingConfig(
            filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"),
            forwarding=LogForwardingConfig(logging.getLogger("temporalio.core")),
        ),
        metrics=metrics if metrics_listen else None,
        global_tags={"role": role},
    )
    try:
        Runtime.set_default(Runtime(telemetry=telemetry))
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"STAGELY_WORKER_METRICS_LISTEN={metrics_listen} cannot be used: {error}. "
            'Give host:port that no other worker of this machine has, or "" for no metrics.'
        ) from error
