"""What a target's part of the worker process gives to the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from temporalio.worker import Worker


@dataclass(frozen=True, slots=True)
class Served:
    """`workers` are not started yet. `close_all` closes every pull request; `vms` gives (made, alive)."""

    workers: Sequence[Worker]
    close_all: Callable[[], None]
    vms: Callable[[], tuple[int, int]]
