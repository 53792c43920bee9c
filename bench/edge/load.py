"""The loads: `wrk` for requests, the Go program for messages and for a fixed rate. Each prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from bench.edge import heads
from bench.edge.peers import program

CONNECTIONS = 64
_SCRIPT = Path(__file__).parent / "load.lua"
_GRACE_S = 30.0


class LoadFailed(Exception):
    """The load ended without figures. The text has what it said."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one round of `wrk` saw. `errors`: connections that failed, answers that are not 2xx or 3xx, timeouts."""

    requests: float
    seconds: float
    bytes: float
    errors: float
    p50_us: float
    p99_us: float


async def wrk(url: str, seconds: float, head_file: Path | None = None, connections: int = CONNECTIONS) -> Sent:
    """Ask as fast as answers come (closed loop). Raises LoadFailed, PeerMissing."""
    script = ["-s", str(_SCRIPT), "-H", f"Host: {heads.host(0)}"]
    argv = [
        program("wrk", "apt-get install wrk"),
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        *script,
        url,
    ]
    return Sent(**parse(await _output([*argv, "--", str(head_file)] if head_file else argv, seconds)))


async def messages(tool: str, port: int, seconds: float) -> dict[str, float]:
    """WebSocket messages to and fro: `messages`, `seconds`, `errors`. Raises LoadFailed."""
    host = f"{heads.WEBSOCKET_LABEL}.{heads.DOMAIN}"
    return parse(await _output([tool, "messages", f"127.0.0.1:{port}", host, str(CONNECTIONS), str(seconds)], seconds))


async def rate(tool: str, port: int, per_second: int, seconds: float) -> dict[str, float]:
    """A fixed number of requests per second: `requests`, `p50_us`, `p99_us`, `errors`. Raises LoadFailed."""
    argv = [tool, "rate", f"127.0.0.1:{port}", heads.host(0), str(per_second), str(CONNECTIONS), str(seconds)]
    return parse(await _output(argv, seconds))


def parse(output: str) -> dict[str, float]:
    """The figures in the last line. Raises LoadFailed."""
    try:
        found = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        raise LoadFailed(f"no figures in: {output[-500:]!r}") from None
    if not isinstance(found, dict):
        raise LoadFailed(f"no figures in: {output[-500:]!r}")
    return found


async def _output(argv: list[str], seconds: float) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise LoadFailed(f"{argv[0]} did not end within {seconds + _GRACE_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    return output.decode(errors="replace")
