"""Waits for the first right answer of a preview, the same way for every target."""

from __future__ import annotations

import asyncio
import time

POLL_S = 0.05
ANSWER_S = 3.0  # One attempt; a proxy may hold a request while nothing is behind it yet.


class NoAnswer(Exception):
    """No 200 with the wanted text in time; the text says what came last."""


async def first_200(address: tuple[str, int], host: str, wanted: str, limit_s: float) -> float:
    """Unix seconds at which `GET /` first answered 200 with `wanted` in its body. Raises NoAnswer."""
    deadline = time.monotonic() + limit_s
    last = "nothing"
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await _get(address, host)
        except (OSError, TimeoutError) as error:
            last = repr(error)
        else:
            if answer.startswith(b"HTTP/1.1 200 ") and wanted.encode() in answer:
                return time.time()
            last = answer.partition(b"\r\n")[0].decode(errors="replace")
        await asyncio.sleep(POLL_S)
    raise NoAnswer(f"no 200 with {wanted!r} from {host} at {address[0]}:{address[1]} in {limit_s:.0f} s; last: {last}")


async def _get(address: tuple[str, int], host: str) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return await reader.read(-1)
    finally:
        writer.close()
