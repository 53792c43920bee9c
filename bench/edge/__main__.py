"""One core of the edge beside other proxies on the same core, in the same run.

    python -m bench.edge --json FILE [--scenarios one,browser,...] [--rounds N] [--quick]

The first core has the proxy under test and nothing else; the second has the load (`wrk -t1`), the origin (nginx), and
Valkey for those proxies that ask it. Peers come from Debian's packages; one that is missing is left out with a line
that says how to get it. Ends with 1 when anything is missing or an answer was wrong; verdicts do not count. FILE gets
one JSON object a line: {scenario, target, metric, value, unit, round}.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench.choices import choices
from bench.edge import idle, peers, quota, report, scenarios
from bench.edge.peers import PeerMissing
from bench.edge.scenarios import Played
from bench.edge.stage import Stage, StageFailed, Target, stage
from bench.edge.verdicts import BARS, added, two_by_one
from bench.gateway import machine
from bench.gateway.verdicts import ratios, verdicts
from bench.lifecycle.figures import medians
from bench.measures import lines

ROUNDS, QUICK_ROUNDS = 5, 1
_FILES = 20_000 - 200  # Debian's usual hard limit; two descriptors per connection of `idle` are not needed at once.

Scenario = Callable[[Stage, Target, int], Awaitable[Played]]


def _in_turn(name: str, loads: scenarios.Load) -> Scenario:
    return partial(scenarios.in_turn, name, loads)


SCENARIOS: dict[str, Scenario] = {
    "one": _in_turn("one", scenarios.requests()),
    "browser": _in_turn("browser", scenarios.requests(kind="browser")),
    "unique": _in_turn("unique", scenarios.requests(kind="unique")),
    "big": _in_turn("big", scenarios.requests("/big")),
    "tls": _in_turn("tls", scenarios.requests(tls=True)),
    "websocket": _in_turn("websocket", scenarios.websocket),
    "latency": _in_turn("latency", scenarios.latency),
    "idle": idle.play,
    "processes": quota.play,
    "metrics": partial(scenarios.anew, "metrics", scenarios.requests(), among=peers.COUNTING),
}


async def measure(names: list[str], rounds: int, *, quick: bool) -> Played:
    """All scenarios. Children and files are gone when it returns, also when it is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    machine.allow_files(idle.CONNECTIONS)
    bench = Played()
    folder = Path(tempfile.mkdtemp(prefix="stagely-bench-"))
    try:
        with stage(folder, quick=quick) as (on, direct):
            for name in names:
                played = await SCENARIOS[name](on, direct, rounds)
                bench.measures += played.measures
                bench.missing += played.missing
        return bench
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    arguments = _arguments()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    try:
        bench = asyncio.run(measure(arguments.scenarios, rounds, quick=arguments.quick))
    except (machine.TooSmall, PeerMissing, StageFailed) as error:
        print(f"bench.edge: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench.edge: stopped", file=sys.stderr)
        return 130
    found = medians(bench.measures)
    found += [*two_by_one(found), *added(found)]
    arguments.json.write_text(lines([*bench.measures, *found, *ratios(found, BARS)]))
    print(report.tables(found))
    for verdict in verdicts(found, BARS):
        print(f"{'holds' if verdict.holds else 'FAILS':<6} {verdict.text}")
    for text in bench.missing:
        print(f"MISSING {text}")
    return 1 if bench.missing else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.edge", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    names = ",".join(SCENARIOS)
    parser.add_argument(
        "--scenarios", type=choices("scenario", SCENARIOS), default=list(SCENARIOS), help=f"default: {names}"
    )
    parser.add_argument("--rounds", type=int, default=0, help=f"of each scenario (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} round of {scenarios.QUICK_SECONDS:.0f} s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
