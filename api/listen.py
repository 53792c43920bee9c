"""Listening sockets out of a setting: `127.0.0.1:8000,172.20.0.1:8000`."""

from __future__ import annotations

import errno
import socket

BACKLOG = 4096  # gateway.md section 5: asyncio's 100 drops a herd's connections, and they come back after 1, 3, 7 s.


def bind(addresses: str) -> list[socket.socket]:
    """One listening socket per comma-separated host:port. Raises RuntimeError that names the address and the remedy."""
    return [_bind(address.strip()) for address in addresses.split(",") if address.strip()]


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RuntimeError(f"{address!r} is not host:port, for example 127.0.0.1:8000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(BACKLOG)  # Not before this does Linux say that somebody else listens there.
    except OSError as error:
        listener.close()
        raise RuntimeError(_explain(address, error)) from error
    return listener


def _explain(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use. Stop what listens there, or choose another --port-base."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine. Is the VM network there? `stagely dev` makes it."
    return f"cannot listen on {address}: {error.strerror}"
