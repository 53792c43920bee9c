"""The ports of one installation: a base and documented offsets, so that two installations never meet."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stagely.dev.refusal import Refused

DEFAULT_BASE = 8000
LAST_OFFSET = 80
_OFFSETS = {
    "api": 0,
    "gateway": 1,
    "forge": 2,
    "registry": 3,
    "mirror": 4,
    "postgres": 5,
    "valkey": 6,
    "temporal": 7,
    "temporal_ui": 8,
    "worker_metrics": 9,
    "edge": LAST_OFFSET,
}


@dataclass(frozen=True, slots=True)
class Ports:
    """One number per listener. `of(base)` is the only place that knows the offsets."""

    base: int
    api: int
    gateway: int
    forge: int
    registry: int
    mirror: int
    postgres: int
    valkey: int
    temporal: int
    temporal_ui: int
    worker_metrics: int
    edge: int

    @classmethod
    def of(cls, base: int) -> Ports:
        """The ports of base..base+80. Raises Refused when they do not all exist for ordinary users."""
        if not 1024 <= base <= 65535 - LAST_OFFSET:
            raise Refused(f"--port-base must be from 1024 to {65535 - LAST_OFFSET}, got {base}.")
        return cls(base, **{name: base + offset for name, offset in _OFFSETS.items()})

    def named(self) -> dict[str, int]:
        """Name of the listener to its port, in the order of the offsets."""
        return {name: self.base + offset for name, offset in _OFFSETS.items()}


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a program of ours could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def taken(ports: Ports, wanted: Iterable[str]) -> str | None:
    """The name of the first of the `wanted` listeners whose port another program has, or None."""
    numbers = ports.named()
    return next((name for name in wanted if not is_free(numbers[name])), None)


def refuse_taken(ports: Ports, name: str) -> Refused:
    """The sentence for a port that another program has."""
    port = ports.named()[name]
    owner = _listener(port)
    by = f" by {owner}" if owner else ""
    return Refused(
        f"Port {port} ({name.replace('_', ' ')}) is in use{by}. "
        f"Stop that program, or choose other ports: stagely dev --port-base {ports.base + 1000}"
    )


def _listener(port: int) -> str:
    """`process NUMBER (name)` of who listens on `port`, as far as this user may see it; "" otherwise."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                process = link.parent.parent
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # It ended meanwhile, or belongs to another user.
    return ""


def _listening_inodes(port: int) -> list[str]:
    """Source: Linux, Documentation/networking/proc_net_tcp.rst: local address, state 0A = LISTEN, inode in column 9."""
    found: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue  # A kernel without IPv6 has no second table.
        found += [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
    return found
