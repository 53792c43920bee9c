"""Settings of all processes follow from ports, network and what the environment names."""

from __future__ import annotations

from pathlib import Path

from stagely.dev.addresses import Addresses, own_listeners
from stagely.dev.docker import VmNetwork
from stagely.dev.folder import StateFolder
from stagely.dev.ports import Ports
from stagely.dev.setup_record import SetupRecord
from stagely.settings import Settings

RECORD = SetupRecord(Path("/t"), Path("/r"), "stagely/local-vm:1", "stand-ins", Path("/m"))


def addresses(given: dict[str, str]) -> Addresses:
    network = VmNetwork("stagely-abc", "10.1.0.0/16", "10.1.0.1")
    return Addresses(StateFolder(Path("/state")), "abc", Ports.of(9000), network, given)


def test_vms_reach_everything_by_the_networks_gateway() -> None:
    settings = addresses({}).settings(RECORD)

    assert settings["STAGELY_CORE_URL"] == "http://10.1.0.1:9000"
    assert settings["STAGELY_AGENT_URL"] == "ws://10.1.0.1:9001"
    assert settings["STAGELY_GITHUB_URL_FOR_VMS"] == "http://10.1.0.1:9002"
    assert settings["STAGELY_REGISTRY"] == "10.1.0.1:9003"
    assert settings["STAGELY_MIRROR"] == "10.1.0.1:9004"
    assert settings["STAGELY_API_LISTEN"] == "127.0.0.1:9000,10.1.0.1:9000"


def test_named_addresses_replace_embedded_parts() -> None:
    given = {"STAGELY_DATABASE_URL": "postgresql://db/stagely", "TEMPORAL_ADDRESS": "temporal:7233"}
    made = addresses(given)

    assert made.settings(RECORD)["STAGELY_DATABASE_URL"] == "postgresql://db/stagely"
    assert made.settings(RECORD)["TEMPORAL_ADDRESS"] == "temporal:7233"
    assert made.external == {"postgres", "temporal"}
    assert "temporal_ui" not in made.urls()
    assert own_listeners(made.ports, given) == [
        "api",
        "gateway",
        "forge",
        "registry",
        "mirror",
        "valkey",
        "worker_metrics",
        "edge",
    ]


def test_every_setting_has_a_name_that_the_processes_read() -> None:
    read = {f"STAGELY_{name.upper()}" for name in Settings.model_fields}
    of_others = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "STAGELY_EDGE_LISTEN", "STAGELY_DOMAIN"}

    assert set(addresses({}).settings(RECORD)) - read == of_others
