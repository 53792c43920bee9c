"""Pebble, Let's Encrypt's own test authority, and the DNS server that it asks; both as real programs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.edge.certificates import write_pair
from tests.services import child, free_port

START_LIMIT_S = 20.0
DAY_S = 86_400
BLOCKED = "blocked.example"


@dataclass(frozen=True, slots=True)
class Dns:
    """pebble-challtestsrv: answers on `port` what it is told at `management`."""

    port: int
    management: str

    def publish(self, name: str, values: list[str]) -> None:
        """These are the name's TXT values from now on."""
        self._tell("clear-txt", {"host": f"{name}."})
        for value in values:
            self._tell("set-txt", {"host": f"{name}.", "value": value})

    def _tell(self, what: str, body: dict[str, str]) -> None:
        httpx.post(f"{self.management}/{what}", json=body, timeout=START_LIMIT_S).raise_for_status()


@dataclass(frozen=True, slots=True)
class Pebble:
    """`ca_file` is what a client must trust to speak with it."""

    directory: str
    management: str
    ca_file: Path
    log: Path

    def root(self) -> str:
        """The certificate that its chains end at, as PEM; another one with every start."""
        trusting = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx.get(f"{self.management}/roots/0", verify=trusting, timeout=START_LIMIT_S).raise_for_status().text

    def requests(self, path: str) -> int:
        """How many requests to this path its log has."""
        return self.log.read_text().count(f"POST {path} ->")


@contextmanager
def dns_server(folder: Path) -> Iterator[Dns]:
    port, management = free_port(), free_port()
    none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""]
    listen = ["-dnsserver", f"127.0.0.1:{port}", "-management", f"127.0.0.1:{management}"]
    with child([program("pebble-challtestsrv"), *listen, *none], folder / "dns.log"):
        _wait_for(management)
        yield Dns(port, f"http://127.0.0.1:{management}")


@contextmanager
def pebble_server(folder: Path, dns: Dns, **behaviour: int) -> Iterator[Pebble]:
    """`behaviour`: Pebble's own variables without their prefix, such as AUTHZREUSE=100 (per cent)."""
    folder.mkdir(exist_ok=True)
    tls, port, management = write_pair(folder / "tls", ("localhost",)), free_port(), free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(tls.certificate),
        "privateKey": str(tls.key),
        "retryAfter": {"authz": 1, "order": 1},
        "keyAlgorithm": "ecdsa",
        "domainBlocklist": [BLOCKED],
        "profiles": {
            "default": {"description": "90 days", "validityPeriod": 90 * DAY_S},
            "shortlived": {"description": "6 days", "validityPeriod": 6 * DAY_S},
        },
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    chosen = {"VA_NOSLEEP": 1, "AUTHZREUSE": 0, **behaviour}
    told = [f"PEBBLE_{name}={value}" for name, value in chosen.items()]
    argv = [
        "env",
        *told,
        program("pebble"),
        "-config",
        str(folder / "pebble.json"),
        "-dnsserver",
        f"127.0.0.1:{dns.port}",
    ]
    with child(argv, folder / "pebble.log"):
        _wait_for(port)
        url, manage = f"https://localhost:{port}/dir", f"https://localhost:{management}"
        yield Pebble(url, manage, tls.certificate, folder / "pebble.log")


def program(name: str) -> str:
    """Where `make test` has put it, or the system. Skips where it could not be built: there is no Go."""
    cache = Path(os.environ.get("STAGELY_CACHE") or Path.home() / ".cache" / "stagely")
    found = shutil.which(name) or str(cache / "bin" / name)
    if not Path(found).exists():
        if shutil.which("go") is None:
            pytest.skip(f"no {name}, and no Go to build it with")
        raise RuntimeError(f"no {name} at {found}: run `make pebble`")
    return found


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # noqa: TID251  # A program that starts has no event for this.
