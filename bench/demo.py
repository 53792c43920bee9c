"""How long a pull request waits for its preview: `stagely` beside `bare`, the same physical steps by a shell script.

    python -m bench.demo --json FILE [--rounds 5]

Each round is a new pull request and a second push, on a fresh repository with an empty build cache, for both targets
in turn. Prints a table; FILE gets one JSON object a line: {scenario, target, metric, value, unit}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.bare import Bare, BareFailed, Place
from bench.measures import FIRST_200, Measure, lines, summary, table
from bench.poll import NoAnswer
from bench.repository import Repository
from bench.system import Previews, SystemFailed, running
from stagely.cli.installation import Installation
from stagely.dev.forge.client import ForgeClient
from stagely.dev.setup_record import load

DEFAULT_PORT_BASE = 28000
SCENARIOS = {"open": "new_pull_request", "push": "second_push"}
_CLOCK_HZ = os.sysconf("SC_CLK_TCK")

Run = Callable[[str, str], Awaitable[tuple[float, Mapping[str, float]]]]
"""(verb, version) to seconds until the first right answer, and seconds by phase."""


@dataclass(slots=True)
class Bench:
    """One run of the benchmark."""

    installation: Installation
    place: Place
    folder: Path
    measures: list[Measure] = field(default_factory=list)

    async def round(self, number: int) -> None:
        """Both targets, in turns first: whoever is second finds the disk's cache warm."""
        order = [self._bare, self._stagely]
        for target in order if number % 2 else reversed(order):
            await target(number)

    async def _bare(self, number: int) -> None:
        source = Repository(self.folder, f"bench-bare-{number}")
        target = Bare(self.place, source.name)

        async def run(verb: str, version: str) -> tuple[float, Mapping[str, float]]:
            await asyncio.to_thread(self._to_forge, source)
            return await target.run(verb, source, version)

        try:
            await self._both("bare", number, source, run)
        finally:
            await target.close()

    async def _stagely(self, number: int) -> None:
        source = Repository(self.folder, f"bench-stagely-{number}")
        target = Previews(self.installation, source)

        async def run(verb: str, version: str) -> tuple[float, Mapping[str, float]]:
            answered = await target.run(verb, version)
            return answered.seconds, answered.phases

        try:
            await self._both("stagely", number, source, run)
        finally:
            await target.close()

    async def _both(self, target: str, number: int, source: Repository, run: Run) -> None:
        for verb, scenario in SCENARIOS.items():
            version = f"{target}-{number}-{verb}"
            source.commit(version)
            busy = _cpu_seconds()
            seconds, phases = await run(verb, version)
            self._note(Measure(scenario, target, FIRST_200, seconds, "s", number))
            self._note(Measure(scenario, target, "machine_cpu", _cpu_seconds() - busy, "s", number))
            for name, value in phases.items():
                self._note(Measure(scenario, target, f"phase_{name.replace(' ', '_')}", value, "s", number))
            print(f"round {number}  {scenario:<17} {target:<8} {seconds:6.2f} s", file=sys.stderr, flush=True)

    def _note(self, measure: Measure) -> None:
        self.measures.append(measure)

    def _to_forge(self, source: Repository) -> None:
        with ForgeClient(self.installation.forge, self.installation.github_token) as forge:
            forge.ensure_repo(source.name)
            forge.push(source.full_name, source.path, source.sha, "bench")


async def measure(rounds: int, state: Path, port_base: int) -> list[Measure]:
    """All rounds' figures and their summary. Raises BareFailed, SystemFailed or NoAnswer."""
    folder = Path(tempfile.mkdtemp(prefix="stagely-bench-"))
    try:
        async with running(state, port_base) as installation:
            bench = Bench(installation, _place(installation, folder), folder)
            for number in range(1, rounds + 1):
                await bench.round(number)
        return bench.measures + summary(bench.measures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    arguments = _arguments()
    try:
        measures = asyncio.run(measure(arguments.rounds, arguments.state, arguments.port_base))
    except (BareFailed, SystemFailed, NoAnswer, TimeoutError, ExceptionGroup) as error:
        print(f"bench.demo: {_first(error) or 'a step took longer than its limit'}", file=sys.stderr)
        return 1
    arguments.json.write_text(lines(measures))
    print(table([m for m in measures if m.round is None]))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--state", type=Path, default=Path(".stagely/bench"), help="state of the stagely dev measured")
    parser.add_argument("--port-base", type=int, default=DEFAULT_PORT_BASE)
    return parser.parse_args()


def _place(installation: Installation, folder: Path) -> Place:
    record = json.loads((installation.state / "dev.json").read_text())
    gateway = record["network"]["gateway"]
    return Place(
        image=load().vm_image,
        network=record["network"]["name"],
        registry=f"{gateway}:{record['ports']['registry']}",
        mirror=f"{gateway}:{record['ports']['mirror']}",
        forge_for_vms=installation.forge_for_vms,
        token=installation.github_token,
        folder=folder,
    )


def _cpu_seconds() -> float:
    """CPU seconds that this machine has spent on anything but waiting. Source: proc(5), /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / _CLOCK_HZ


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
