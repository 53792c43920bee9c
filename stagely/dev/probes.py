"""Readiness: is this part there now? Each probe is quick, never raises, and is asked again until a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Probe = Callable[[], Awaitable[bool]]

ATTEMPT_TIMEOUT_S = 2.0  # A part that takes longer for one answer is not ready.
PAUSE_S = 0.05


async def always() -> bool:
    """For a program that listens nowhere and says on its output that it is ready."""
    return True


def tcp(host: str, port: int) -> Probe:
    """Ready when it accepts a connection."""

    async def ask() -> bool:
        return await _exchange(host, port, b"") is not None

    return ask


def http(host: str, port: int, path: str, status: int = 200) -> Probe:
    """Ready when `GET path` answers `status`. Twelve lines instead of an HTTP client that takes 0.2 s to import."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def ask() -> bool:
        answer = await _exchange(host, port, request)
        return answer is not None and answer.split(b" ", 2)[1:2] == [str(status).encode()]

    return ask


def redis(host: str, port: int) -> Probe:
    """Ready when PING answers PONG; a server that still loads its data says LOADING."""

    async def ask() -> bool:
        return await _exchange(host, port, b"PING\r\n") == b"+PONG\r\n"

    return ask


async def _exchange(host: str, port: int, request: bytes) -> bytes | None:
    """The first line of the answer (b"" when nothing is asked), or None when there is none in time."""
    try:
        async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return await reader.readline() if request else b""
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None
