"""Memory of connections that were used once and say nothing more."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from bench.edge import heads, peers
from bench.edge.peers import PeerMissing
from bench.edge.scenarios import Played
from bench.edge.stage import Stage, StageFailed, Target, listening, proxy, say
from bench.gateway import machine
from bench.measures import Measure

CONNECTIONS, QUICK_CONNECTIONS = 10_000, 1_000
_TIMEOUT_S = 10.0


async def play(on: Stage, direct: Target, rounds: int) -> Played:
    """Once for each target, `rounds` is not looked at: memory does not move with the hour."""
    played = Played()
    count = QUICK_CONNECTIONS if on.quick else CONNECTIONS
    for peer in peers.PEERS:
        try:
            with proxy(on, peer) as started:
                per_connection = _kib_per_connection(await listening(on, started), count)
        except (PeerMissing, StageFailed, OSError) as missing:
            played.missing.append(f"idle, {peer.name}: {missing}")
            continue
        played.measures.append(Measure("idle", peer.name, "memory_per_connection", round(per_connection, 2), "KiB", 1))
        say(f"idle      {peer.name:<10} {per_connection:.2f} KiB per connection")
    return played


def _kib_per_connection(target: Target, count: int) -> float:
    before = machine.pss_kib(target.pid)
    request = f"GET / HTTP/1.1\r\nHost: {heads.host(0)}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", target.http), _TIMEOUT_S))
            connection.sendall(request)
            answer = connection.recv(65536)
            if b" 200 " not in answer[:20]:
                raise StageFailed(f"{target.name} answered {answer[:60]!r}")
        return (machine.pss_kib(target.pid) - before) / count
