"""Many agents on one gateway, beside a bare `websockets` server under uvloop in the same run.

    python -m bench.gateway --json FILE [--scenarios density,logs,herd,flood] [--agents N] [--seconds S] [--quick]

The target runs on one core; load, PostgreSQL and Valkey on another. Ends with 1 when a scenario is incomplete: an agent
that did not get in, a line that is not in Postgres. FILE gets one JSON object a line:
{scenario, target, metric, value, unit}.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.choices import choices
from bench.gateway import density, flood, herd, logs, machine
from bench.gateway.stage import Played, Stage
from bench.gateway.verdicts import ratios, verdicts
from bench.lifecycle.servers import stores
from bench.measures import lines, table

AGENTS, SECONDS, HEARTBEAT_S = 10_000, 600.0, 30.0
QUICK_AGENTS, QUICK_SECONDS, QUICK_HEARTBEAT_S = 500, 20.0, 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """`agents` and `seconds` of density, `agents` of herd; the other scenarios shrink when it is quick."""

    agents: int
    seconds: float
    is_quick: bool

    @property
    def heartbeat_s(self) -> float:
        return QUICK_HEARTBEAT_S if self.is_quick else HEARTBEAT_S


SCENARIOS: dict[str, Callable[[Stage, Size], Awaitable[Played]]] = {
    "density": lambda stage, size: density.play(stage, density.Plan(size.agents, size.seconds, size.heartbeat_s)),
    "logs": lambda stage, size: logs.play(stage, logs.Plan(10, 4) if size.is_quick else logs.Plan(60, 10)),
    "herd": lambda stage, size: herd.play(stage, size.agents),
    "flood": lambda stage, size: flood.play(stage, flood.Plan(8, 20, 10) if size.is_quick else flood.Plan(30, 60, 60)),
}


async def measure(names: list[str], size: Size) -> Played:
    """All scenarios. Children and files are gone when it returns, also when it is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    bench = Played([], [])
    cores = machine.two_cores()
    machine.pin(os.getpid(), cores.load)
    machine.allow_files(size.agents)
    folder = Path(tempfile.mkdtemp(prefix="stagely-bench-"))
    try:
        with stores(folder) as running:
            for name in names:
                await _play(bench, name, Stage(running, cores, folder), size)
        return bench
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _play(bench: Played, name: str, stage: Stage, size: Size) -> None:
    gc.collect()
    gc.freeze()  # What the load holds by now must not be looked through while it takes the time of others.
    played = await SCENARIOS[name](stage, size)
    bench.measures.extend(played.measures)
    bench.missing.extend(played.missing)


def main() -> int:
    arguments = _arguments()
    quick = arguments.quick
    size = Size(
        arguments.agents or (QUICK_AGENTS if quick else AGENTS),
        arguments.seconds or (QUICK_SECONDS if quick else SECONDS),
        quick,
    )
    try:
        bench = uvloop.run(measure(arguments.scenarios, size))
    except machine.TooSmall as error:
        print(f"bench.gateway: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench.gateway: stopped", file=sys.stderr)
        return 130
    compared = ratios(bench.measures)
    arguments.json.write_text(lines([*bench.measures, *compared]))
    print(table(bench.measures))
    for verdict in verdicts(bench.measures):
        print(f"{'holds' if verdict.holds else 'FAILS':<6} {verdict.text}")
    for text in bench.missing:
        print(f"MISSING {text}")
    return 1 if bench.missing else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    names = ",".join(SCENARIOS)
    parser.add_argument(
        "--scenarios", type=choices("scenario", SCENARIOS), default=list(SCENARIOS), help=f"default: {names}"
    )
    parser.add_argument("--agents", type=int, default=0, help=f"of density and herd (default: {AGENTS})")
    parser.add_argument("--seconds", type=float, default=0, help=f"of density's heartbeats (default: {SECONDS:.0f})")
    what = f"{QUICK_AGENTS} agents, {QUICK_SECONDS:.0f} s, a heartbeat each {QUICK_HEARTBEAT_S:.0f} s"
    parser.add_argument("--quick", action="store_true", help=f"a look in minutes: {what}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
