"""Two processes of the edge beside one, each process held to a quarter of the target's core by its own control group.

On a machine with two cores more processes can be measured in no other way: what is seen is what they cost each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.edge import load, peers
from bench.edge.peers import PeerMissing
from bench.edge.scenarios import QUICK_SECONDS, SECONDS, Played
from bench.edge.stage import Stage, StageFailed, Target, listening, proxy, say
from bench.measures import Measure

ONE, TWO = "stagely-1", "stagely-2"
_PERIOD_US = 10_000  # Short, so that a process is never stopped long.
_SHARE = 4
_WEIGHT = 100  # Of what others on this machine have: the quota alone is to hold it back.
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


class NoQuota(Exception):
    """No control group can be made here; the text says why."""


async def play(on: Stage, direct: Target, rounds: int) -> Played:
    """Rounds in turn of one process and of two."""
    played = Played()
    try:
        with ExitStack() as stack:
            running = [await _held(on, stack, name, count) for name, count in ((ONE, 1), (TWO, 2))]
            for number in range(1, rounds + 1):
                for target in running:
                    await _round(on, target, number, played)
    except (NoQuota, PeerMissing, StageFailed, load.LoadFailed) as missing:
        played.missing.append(f"processes: {missing}")
    return played


async def _round(on: Stage, target: Target, number: int, played: Played) -> None:
    sent = await load.wrk(f"http://127.0.0.1:{target.http}/", QUICK_SECONDS if on.quick else SECONDS)
    value = round(sent.requests / sent.seconds, 1)
    played.measures.append(Measure("processes", target.name, "requests_per_s", value, "1/s", number))
    if sent.errors:
        played.missing.append(f"processes, {target.name}, round {number}: {sent.errors:.0f} errors")
    say(f"processes {target.name:<10} round {number}  requests_per_s {value:.1f}")


async def _held(on: Stage, stack: ExitStack, name: str, count: int) -> Target:
    peer = peers.Peer(name, partial(peers.stagely, workers=count))
    target = await listening(on, stack.enter_context(proxy(on, peer)))
    serving = _children(target.pid) or [target.pid]
    if len(serving) != count:
        raise StageFailed(f"{count} processes were asked for, and {len(serving)} serve")
    for number, pid in enumerate(serving):
        stack.enter_context(_quarter(pid, f"stagely-bench-{os.getpid()}-{name}-{number}"))
    return target


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _quarter(pid: int, name: str) -> Iterator[None]:
    """That process in a group of its own until the block ends. Raises NoQuota."""
    is_v1 = (_V1 / "cpu.cfs_quota_us").exists()
    parent = _V1 if is_v1 else _V2
    group = parent / name
    try:
        if not is_v1:
            (parent / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
    except OSError as error:
        raise NoQuota(f"{parent} cannot be written ({error.strerror}): run as root") from None
    try:
        if is_v1:
            (group / "cpu.shares").write_text(str(_WEIGHT * 1024))
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(_PERIOD_US // _SHARE))
        else:
            (group / "cpu.weight").write_text(str(_WEIGHT * 100))
            (group / "cpu.max").write_text(f"{_PERIOD_US // _SHARE} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        _dissolve(group, parent)


def _dissolve(group: Path, parent: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        (parent / "cgroup.procs").write_text(pid)
    group.rmdir()
