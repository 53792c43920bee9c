"""The client factory: which server, with which credentials, and the SDK's metrics and silence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes

from stagely import temporal
from stagely.codec import EncryptionCodec
from stagely.keyring import KeyFileInvalid
from stagely.settings import Settings
from tests.encryption import KEY_FILE
from tests.services import free_port

CERTIFICATE = "TEMPORAL_TLS_CLIENT_CERT_PATH"


def settings(**more: object) -> Settings:
    return Settings.model_validate({"encryption_key_file": KEY_FILE, **more})


async def test_every_client_encrypts_payloads_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await temporal.connect(settings(TEMPORAL_ADDRESS="127.0.0.1:1"))

    converter = client.data_converter
    assert isinstance(converter.payload_codec, EncryptionCodec)
    assert converter.failure_converter_class is DefaultFailureConverterWithEncodedAttributes


async def test_a_client_without_keys_is_refused() -> None:
    with pytest.raises(KeyFileInvalid, match="STAGELY_ENCRYPTION_KEY_FILE is not set"):
        await temporal.connect(Settings.model_validate({}))


async def test_address_and_namespace_come_from_the_settings() -> None:
    client = await temporal.connect(settings(TEMPORAL_ADDRESS="temporal:7233", TEMPORAL_NAMESPACE="stagely"))

    assert client.service_client.config.target_host == "temporal:7233"
    assert client.namespace == "stagely"
    assert not client.service_client.config.tls


async def test_an_api_key_switches_tls_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "the-key")

    client = await temporal.connect(settings(TEMPORAL_ADDRESS="cloud:7233"))

    assert client.service_client.config.api_key == "the-key"
    assert client.service_client.config.tls


async def test_an_empty_api_key_is_no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "")

    client = await temporal.connect(settings())

    assert client.service_client.config.api_key is None
    assert not client.service_client.config.tls


async def test_a_profile_file_counts_only_when_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = tmp_path / "temporal.toml"
    profile.write_text('[profile.default]\naddress = "profile:7233"\nnamespace = "of-profile"\n')
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))

    named = await temporal.connect(settings())
    monkeypatch.delenv("TEMPORAL_CONFIG_FILE")
    unnamed = await temporal.connect(settings())

    assert (named.service_client.config.target_host, named.namespace) == ("profile:7233", "of-profile")
    assert (unnamed.service_client.config.target_host, unnamed.namespace) == ("127.0.0.1:8007", "default")


async def test_a_missing_certificate_is_said_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CERTIFICATE, "/none.pem")

    with pytest.raises(RuntimeError, match=rf"variables of the Temporal client \({CERTIFICATE}\) cannot be used"):
        await temporal.connect(settings())


# A runtime belongs to its process for good, so each of these runs in one of its own.
METRICS = """
import sys, urllib.request
from temporalio.runtime import Runtime
from stagely.temporal import set_up_runtime
set_up_runtime(sys.argv[1], "core")
Runtime.default().metric_meter.create_histogram_timedelta("boot").record(__import__("datetime").timedelta(seconds=2))
Runtime.default().metric_meter.create_counter("sweeps").add(1)
print(urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=10).read().decode())
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip


def test_metrics_are_served_in_seconds_with_the_role() -> None:
    done = run(METRICS, f"127.0.0.1:{free_port()}")

    assert re.search(r"sweeps_total{.*role=\"core\".*} 1\n", done.stdout)
    assert "boot_seconds_sum" in done.stdout
    assert "} 2\n" in done.stdout


def test_a_metrics_address_that_is_taken_is_said_with_the_setting() -> None:
    port = free_port()
    twice = "import stagely.temporal as t, sys; t.set_up_runtime(sys.argv[1], 'a'); t.set_up_runtime(sys.argv[1], 'b')"

    done = run(twice, f"127.0.0.1:{port}")

    assert done.returncode == 1
    assert f"STAGELY_WORKER_METRICS_LISTEN=127.0.0.1:{port} cannot be used" in done.stderr
