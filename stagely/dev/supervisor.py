"""Parent of all children: starts them, keeps them running, ends them in reverse order. Nothing outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path

from stagely.dev.child import Child, ChildSpec
from stagely.dev.console import Console
from stagely.processes import state_of

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
REAP_PERIOD_S = 1.0


class Supervisor:
    """`async with Supervisor(...).running() as supervisor: await supervisor.start(spec)`."""

    def __init__(self, logs: Path, console: Console) -> None:
        self._logs = logs
        self._console = console
        self._children: list[Child] = []
        self._group = asyncio.TaskGroup()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Children can be started inside; all are gone when the block is left, however it is left."""
        become_subreaper()
        async with self._group:
            reaping = self._group.create_task(self._reap_orphans())
            try:
                yield self
            finally:
                await self.stop()
                reaping.cancel()

    async def start(self, spec: ChildSpec) -> Child:
        """Start one child and wait until it is ready. Raises StartFailed."""
        child = Child(spec, self._logs, self._console)
        self._children.append(child)
        self._group.create_task(child.keep())
        await child.wait_ready()
        return child

    async def stop(self) -> None:
        """End all children, the highest layer first, each layer side by side. Again: nothing."""
        ordered = sorted(self._children, key=lambda child: -child.spec.layer)
        for _, layer in groupby(ordered, key=lambda child: child.spec.layer):
            async with asyncio.TaskGroup() as stopping:
                for child in layer:
                    stopping.create_task(child.stop())

    def kill(self) -> None:
        """End all children at once: the person pressed Ctrl-C a second time."""
        for child in self._children:
            child.kill()

    def pids(self) -> dict[str, int]:
        """Process ids of the children that run now, by name."""
        return {child.spec.name: child.pid for child in self._children if child.pid is not None}

    async def _reap_orphans(self) -> None:
        seen: set[int] = set()
        while True:
            await asyncio.sleep(REAP_PERIOD_S)
            zombies = zombie_children()
            reap(zombies & seen)
            seen = zombies


def become_subreaper() -> None:
    """Orphans of our children become ours, instead of zombies of a first process that reaps late."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def zombie_children() -> set[int]:
    """Ended children that nobody has waited for yet."""
    found: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # The thread, or the kernel's support for this file, is gone.
            found.update(int(pid) for pid in listing.read_text().split() if state_of(int(pid)) == "Z")
    return found


def reap(pids: set[int]) -> None:
    """Take the exit status of these. Only for those seen twice: whoever started a child itself waits within moments."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
