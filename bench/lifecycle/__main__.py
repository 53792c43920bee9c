"""Many pull requests at once on a cloud in memory: `stagely` beside `bare`, the same shape with empty activities.

    python -m bench.lifecycle --json FILE [--sizes 1,10,100] [--targets bare,stagely] [--rounds 3] [--slow [1000]]

Targets take turns in who is first, each round on a new Temporal server with an empty database file and an empty
database of its own, so that nobody pays for the rows of the round before. Ends with 1 when something did not become
ready, did not end, or was left over. FILE gets one JSON object a line: {scenario, target, metric, value, unit}, with
`round` for single rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.choices import choices
from bench.lifecycle import figures
from bench.lifecycle.rounds import Crowd
from bench.lifecycle.servers import Stores, stores
from bench.lifecycle.stage import TARGETS, play
from bench.measures import Measure, lines, table

SMALL = 10  # So many are over in seconds, and what else the machine does shows: they are repeated.
SLOW = 1000
PACE_S = 1.0  # Below what two cores take (1.2 to 1.5 environments a second), so that no queue forms.


@dataclass(slots=True)
class Bench:
    stores: Stores
    folder: Path
    rounds: list[Measure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    async def run(self, crowds: Sequence[Crowd], targets: Sequence[str], rounds: int) -> None:
        """`rounds`: of each crowd that is over in seconds; of larger ones it is one."""
        for crowd, number in plan(crowds, rounds):
            turns = targets if (number + crowds.index(crowd)) % 2 else list(reversed(targets))
            for target in turns:
                await self._round(crowd, target, number)

    async def _round(self, crowd: Crowd, target: str, number: int) -> None:
        folder = self.folder / f"{crowd.name}-{target}-{number}"
        folder.mkdir()
        seen = await play(target, crowd, self.stores, folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.rounds += figures.of_round(crowd, target, seen, number)
        self.missing += [f"{crowd.name}, {target}: {text}" for text in seen.missing]
        took = f"ready {seen.opening_s:.1f} s, gone {seen.closing_s:.1f} s, {seen.vms_made} VMs"
        print(f"{crowd.name:<22} {target:<8} {took}", *seen.missing, sep="\n  ", file=sys.stderr, flush=True)


async def measure(crowds: Sequence[Crowd], targets: Sequence[str], rounds: int) -> Bench:
    """All rounds. Children and files are gone when it returns, also when it is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="stagely-bench-"))
    try:
        with stores(folder) as running:
            bench = Bench(running, folder)
            await bench.run(crowds, targets, rounds)
            return bench
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    arguments = _arguments()
    crowds = [Crowd(size) for size in arguments.sizes]
    if arguments.slow:
        crowds.append(Crowd(arguments.slow, PACE_S))
    try:
        bench = asyncio.run(measure(crowds, arguments.targets, arguments.rounds))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench.lifecycle: stopped", file=sys.stderr)
        return 130
    medians = figures.medians(bench.rounds)
    ratios = figures.ratios(medians)
    arguments.json.write_text(lines([*bench.rounds, *medians, *ratios]))
    print(table(medians))
    for verdict in figures.verdicts([*medians, *ratios]):
        print(f"{'holds' if verdict.holds else 'FAILS':<6} {verdict.text}")
    for text in bench.missing:
        print(f"MISSING {text}")
    return 1 if bench.missing else 0


def plan(crowds: Sequence[Crowd], rounds: int) -> Iterator[tuple[Crowd, int]]:
    """Each crowd with the numbers of its rounds, from 1."""
    for crowd in crowds:
        for number in range(1, (rounds if crowd.size <= SMALL else 1) + 1):
            yield crowd, number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.lifecycle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    parser.add_argument("--sizes", type=_sizes, default=[1, 10, 100], help="at once, e.g. 1,10 (default: 1,10,100)")
    parser.add_argument(
        "--targets", type=choices("target", TARGETS), default=list(TARGETS), help="default: bare,stagely"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help=f"of sizes up to {SMALL}; larger ones have one (default: 3)"
    )
    what = f"also so many alive together, opened one per second (default: {SLOW}); the better part of an hour"
    parser.add_argument("--slow", type=int, nargs="?", const=SLOW, default=0, metavar="N", help=what)
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",") if part]
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"sizes are numbers from 1, got {text!r}")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
