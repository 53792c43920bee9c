"""What is measured, in rounds in which every target has its turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.edge import heads, load, peers
from bench.edge.peers import PeerMissing
from bench.edge.stage import Stage, StageFailed, Target, listening, proxy, say
from bench.measures import Measure

SECONDS, QUICK_SECONDS = 4.0, 1.0
RATE = 5000  # Requests per second of `latency`: well below what the slowest peer can do.
_MIB = 1 << 20
_STRANGERS_PERCENT = 10  # Of the target's core, used by others: such a round is said.

Figures = list[tuple[str, float, str]]
Load = Callable[[Stage, Target, float], Awaitable[Figures]]


@dataclass(slots=True)
class Played:
    """Figures of every round, and what could not be measured, as sentences."""

    measures: list[Measure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


async def in_turn(
    scenario: str, loads: Load, on: Stage, direct: Target, rounds: int, among: Sequence[peers.Peer] = peers.PEERS
) -> Played:
    """The scenario's rounds on every target that can be had."""
    played = Played()
    with ExitStack() as stack:
        targets = [direct] if scenario != "tls" else []
        targets += await _targets(scenario, among, on, stack, played)
        for number in range(rounds + 1):
            for target in targets:
                await _round(scenario, loads, on, target, number, played)
    return played


async def anew(
    scenario: str, loads: Load, on: Stage, direct: Target, rounds: int, among: Sequence[peers.Peer]
) -> Played:
    """As `in_turn`, for differences of a few per cent: each round has processes of its own, and the order turns.

    Where a process happens to lie in memory stays as it is for as long as it runs. `direct` is not measured.
    """
    played = Played()
    for number in range(1, rounds + 1):
        with ExitStack() as stack:
            targets = await _targets(scenario, among, on, stack, played)
            for target in targets if number % 2 else reversed(targets):
                await _round(scenario, loads, on, target, 0, played)
                await _round(scenario, loads, on, target, number, played)
    return played


async def _targets(
    scenario: str, among: Sequence[peers.Peer], on: Stage, stack: ExitStack, played: Played
) -> list[Target]:
    found = []
    for peer in among:
        try:
            target = await listening(on, stack.enter_context(proxy(on, peer)))
        except (PeerMissing, StageFailed) as missing:
            played.missing.append(f"{scenario}, {peer.name}: {missing}")
            continue
        if scenario == "tls" and not target.tls:
            played.missing.append(f"{scenario}, {peer.name}: does not speak TLS")
        else:
            found.append(target)
    return found


async def _round(scenario: str, loads: Load, on: Stage, target: Target, number: int, played: Played) -> None:
    """Round 0 warms up and is not kept."""
    seconds = QUICK_SECONDS if on.quick or not number else SECONDS
    try:
        figures = await loads(on, target, seconds)
    except (load.LoadFailed, PeerMissing) as failed:
        if number:
            played.missing.append(f"{scenario}, {target.name}, round {number}: {failed}")
        return
    if number:
        played.measures += [
            Measure(scenario, target.name, n, round(value, 3), unit, number) for n, value, unit in figures
        ]
        found = {name: value for name, value, _ in figures}
        if found.get("errors"):
            played.missing.append(f"{scenario}, {target.name}, round {number}: {found['errors']:.0f} errors")
        say(f"{scenario:<9} {target.name:<10} round {number}  " + "  ".join(f"{n} {v:.1f}" for n, v, _ in figures))


def requests(path: str = "/", kind: str = "", *, tls: bool = False) -> Load:
    """`wrk` on that path; `kind` names the heads of bench.edge.heads, "" for the shortest."""

    async def run(on: Stage, target: Target, seconds: float) -> Figures:
        file = _head_file(on.folder, kind) if kind else None
        origin = f"https://{heads.host(0)}:{target.tls}" if tls else f"http://{heads.host(0)}:{target.http}"
        with _cpu(on, target) as spent:
            sent = await load.wrk(origin + path, seconds, file)
        return [
            ("requests_per_s", sent.requests / sent.seconds, "1/s"),
            ("mb_per_s", sent.bytes / sent.seconds / 1e6, "MB/s"),
            ("p50", sent.p50_us / 1000, "ms"),
            ("p99", sent.p99_us / 1000, "ms"),
            ("errors", sent.errors, "requests"),
            *spent(sent.requests, "request"),
        ]

    return run


async def websocket(on: Stage, target: Target, seconds: float) -> Figures:
    """Messages of 64 bytes, echoed, one at a time on each connection."""
    port = on.ports.echo if target.name == peers.DIRECT else target.http
    with _cpu(on, target) as spent:
        found = await load.messages(on.tool, port, seconds)
    count = found["messages"]
    return [
        ("messages_per_s", count / found["seconds"], "1/s"),
        ("errors", found["errors"], "connections"),
        *spent(count, "message"),
    ]


async def latency(on: Stage, target: Target, seconds: float) -> Figures:
    """Answers at RATE requests per second, whatever the answers do."""
    with _cpu(on, target) as spent:
        found = await load.rate(on.tool, target.http, RATE, seconds)
    return [
        ("p50", found["p50_us"] / 1000, "ms"),
        ("p99", found["p99_us"] / 1000, "ms"),
        ("errors", found["errors"], "connections"),
        *spent(found["requests"], "request"),
    ]


@contextmanager
def _cpu(on: Stage, target: Target) -> Iterator[Callable[[float, str], Figures]]:
    """Gives CPU time per unit of work, and how much of the core strangers used."""
    meter = target.meter(on.cores.target)

    def spent(count: float, unit: str) -> Figures:
        used = meter.read()
        figures = [(f"cpu_per_{unit}", 1e6 * used.cpu_s / max(count, 1), "us"), ("cpu", used.cpu_percent, "%")]
        if target.name != peers.DIRECT and used.beside_percent > _STRANGERS_PERCENT:
            say(f"strangers used {used.beside_percent:.0f}% of the target's core in the next round: repeat it")
        return figures

    yield spent


def _head_file(folder: Path, kind: str) -> Path:
    file = folder / f"{kind}.heads"
    if not file.exists():
        file.write_bytes(heads.browser_heads(unique=kind == "unique"))
    return file
