"""Our own processes as ChildSpecs: forge, api, gateway, worker, edge.

Each is `python -m ...`, with its settings in environment variables.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from stagely.dev import probes
from stagely.dev.addresses import APP_ID, LOOPBACK, Addresses
from stagely.dev.child import ChildSpec

FORGE_LAYER = 1
CORE_LAYER = 2
EDGE_LAYER = 3
READY_TIMEOUT_S = 60.0  # Imports take 1 s on an idle machine, and ten times that while builds run on two cores.
WORKER_STOP_S = 15.0  # Activities in flight get 10 s to hand back.
_REPOSITORY = Path(__file__).resolve().parents[2]


def forge_spec(addresses: Addresses) -> ChildSpec:
    """The local forge: GitHub's REST and git's HTTP for local repositories."""
    folder, ports = addresses.folder, addresses.ports
    arguments = {
        "--listen": addresses.listen(ports.forge),
        "--state": str(folder.root.absolute()),
        "--clone-url": addresses.urls()["forge_for_vms"],
        "--webhook-url": f"http://{LOOPBACK}:{ports.api}/v1/webhooks/github",
        "--webhook-secret-file": str(folder.webhook_secret.absolute()),
        "--app-id": APP_ID,
        "--app-public-key": str(folder.app_public_key.absolute()),
        "--admin-token-file": str(folder.github_token.absolute()),
    }
    argv = [word for pair in arguments.items() for word in pair]
    return ChildSpec(
        name="forge",
        argv=_python("-m", "stagely.dev.forge", *argv),
        probe=probes.tcp(LOOPBACK, ports.forge),
        layer=FORGE_LAYER,
        ready_timeout_s=READY_TIMEOUT_S,
        env={"STAGELY_LOG_FORMAT": "json"},
    )


def core_specs(addresses: Addresses, settings: Mapping[str, str]) -> list[ChildSpec]:
    """What needs the engines: api, gateway, worker; and the edge, which stops before them."""
    ports = addresses.ports
    return [
        _core("api", _python("-m", "api"), probes.http(LOOPBACK, ports.api, "/healthz"), settings),
        _core("gateway", _python("-m", "api.gateway"), probes.tcp(LOOPBACK, ports.gateway), settings),
        ChildSpec(
            name="worker",
            argv=_python(str(_REPOSITORY / "worker.py")),
            probe=probes.always,
            ready_line="worker started",
            layer=CORE_LAYER,
            env={**settings, **addresses.worker_secrets()},
            ready_timeout_s=READY_TIMEOUT_S,
            stop_timeout_s=WORKER_STOP_S,
        ),
        ChildSpec(
            name="edge",
            argv=_python("-m", "edge"),
            probe=probes.tcp(LOOPBACK, ports.edge),
            layer=EDGE_LAYER,
            env=settings,
            ready_timeout_s=READY_TIMEOUT_S,
        ),
    ]


def _core(name: str, argv: tuple[str, ...], probe: probes.Probe, settings: Mapping[str, str]) -> ChildSpec:
    return ChildSpec(name, argv, probe, CORE_LAYER, settings, ready_timeout_s=READY_TIMEOUT_S)


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)
