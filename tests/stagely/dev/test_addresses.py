"""Settings of all processes follow from ports, network and what the environment names."""

from __future__ import annotations

from pathlib import Path

from stagely.dev.addresses import Addresses, own_listeners
from stagely.dev.docker import VmNetwork
from stagely.dev.folder import StateFolder
from stagely.dev.ports import Ports
from stagely.dev.programs import core_specs
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


def test_a_given_registry_and_mirror_replace_ours() -> None:
    given = {"STAGELY_REGISTRY": "registry:5000", "STAGELY_MIRROR": "mirror:5001"}
    made = addresses(given)

    settings = made.settings(RECORD)
    assert (settings["STAGELY_REGISTRY"], settings["STAGELY_MIRROR"]) == ("registry:5000", "mirror:5001")
    assert settings["STAGELY_REGISTRY_URL"] == "http://registry:5000"
    assert made.external == {"registry", "mirror"}
    assert {"registry", "mirror"} & set(own_listeners(made.ports, given)) == set()


def test_details_of_a_part_count_only_with_its_address() -> None:
    details = {"TEMPORAL_NAMESPACE": "theirs", "STAGELY_REGISTRY_URL": "https://registry"}
    given = {**details, "TEMPORAL_ADDRESS": "temporal:7233", "STAGELY_REGISTRY": "registry"}

    embedded, elsewhere = addresses(details).settings(RECORD), addresses(given).settings(RECORD)

    assert (embedded["TEMPORAL_NAMESPACE"], embedded["STAGELY_REGISTRY_URL"]) == ("default", "http://10.1.0.1:9003")
    assert (elsewhere["TEMPORAL_NAMESPACE"], elsewhere["STAGELY_REGISTRY_URL"]) == ("theirs", "https://registry")


def test_every_setting_has_a_name_that_the_processes_read() -> None:
    read = {f"STAGELY_{name.upper()}" for name in Settings.model_fields}
    of_edge = {"STAGELY_EDGE_LISTEN", "STAGELY_EDGE_VM_CA", "STAGELY_DOMAIN"}
    of_others = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", *of_edge}

    assert set(addresses({}).settings(RECORD)) - read == of_others


def test_a_foreign_temporal_account_does_not_reach_the_embedded_server() -> None:
    settings = addresses({"TEMPORAL_API_KEY": "of-another-cluster", "TEMPORAL_TLS": "true"}).settings(RECORD)

    assert (settings["TEMPORAL_API_KEY"], settings["TEMPORAL_TLS"]) == ("", "")
    assert settings["TEMPORAL_ADDRESS"] == "127.0.0.1:9007"


def test_a_temporal_that_the_environment_names_keeps_its_account() -> None:
    given = {"TEMPORAL_ADDRESS": "cloud:7233", "TEMPORAL_API_KEY": "key", "STAGELY_ENCRYPTION_KEY_FILE": "/keys"}
    settings = addresses(given).settings(RECORD)

    assert "TEMPORAL_API_KEY" not in settings
    assert settings["STAGELY_ENCRYPTION_KEY_FILE"] == "/keys"


def test_the_web_uis_pages_may_call_the_codec_server() -> None:
    settings = addresses({}).settings(RECORD)

    assert settings["STAGELY_TEMPORAL_UI_ORIGIN"] == "http://127.0.0.1:9008,http://localhost:9008"
    assert settings["STAGELY_CODEC_PATH_TOKEN_FILE"] == "/state/codec-token"
    assert settings["STAGELY_ENCRYPTION_KEY_FILE"] == "/state/encryption-key"


def test_the_key_of_the_vms_ca_is_named_to_the_worker_alone() -> None:
    specs = {spec.name: spec for spec in core_specs(addresses({}), addresses({}).settings(RECORD))}

    told = {name for name, spec in specs.items() if "STAGELY_VM_CA_FILE" in spec.env}

    assert told == {"worker"}
    assert specs["worker"].env["STAGELY_VM_CA_FILE"] == "/state/vm-ca.pem"
    assert specs["edge"].env["STAGELY_EDGE_VM_CA"] == "/state/vm-ca.crt"
