"""`stagely clean`: everything of one installation goes, and the Engine's own list is the proof."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

from stagely.dev import docker
from stagely.dev.console import Console
from stagely.dev.folder import StateFolder
from stagely.dev.refusal import EXIT_REFUSED, Refused
from stagely.dev.words import count

EXIT_FAILED = 1
STOP_TIMEOUT_S = 90.0  # The slowest part, the worker, has 15 s, and the layers stop one after the other.
POLL_S = 0.1


def clean(state: Path, console: Console) -> int:
    """Remove VMs, volumes, network and state folder of an installation. Nothing there: nothing to do.

    A `stagely dev` that runs on it is stopped first.
    """
    folder = StateFolder(state)
    if not (state / "installation").exists():
        console.plain(f"stagely clean: there is no installation in {state}")
        return 0
    try:
        _stop_running(folder, console)
        with folder.lock():
            found = asyncio.run(_clean(folder.installation()))
            shutil.rmtree(state)
    except Refused as refused:
        console.plain(f"stagely clean: {refused}")
        return EXIT_REFUSED
    except (docker.DockerFailed, OSError) as error:
        console.plain(f"stagely clean: not everything could be removed: {error}. Run it again.")
        return EXIT_FAILED
    kinds = {"VM": found.containers, "volume": found.volumes, "network": found.networks}
    removed = ", ".join(count(len(names), noun) for noun, names in kinds.items())
    console.plain(f"Removed {removed}, and the state in {state}.")
    return 0


def _stop_running(folder: StateFolder, console: Console) -> None:
    """Raises Refused when it does not end in time."""
    pid = folder.holder()
    if pid is None:
        return
    console.plain(f"stagely clean: stopping the stagely dev that runs on {folder.root} (process {pid})")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    pause = threading.Event().wait
    while folder.holder() is not None:
        if time.monotonic() > deadline:
            raise Refused(
                f"process {pid} did not stop within {STOP_TIMEOUT_S:g} s. End it (kill -9 {pid}), then again."
            )
        pause(POLL_S)


async def _clean(installation: str) -> docker.Labelled:
    found = await docker.labelled(installation)
    await docker.remove(found)
    return found
