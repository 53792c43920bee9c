"""A `stagely dev` of the demo's own: started as a child that dies with it, stopped and cleaned in the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stagely.cli.progress import Progress
from stagely.cli.refusal import CommandFailed, NotAcceptable
from stagely.dev.refusal import EXIT_REFUSED

START_TIMEOUT_S = 180.0  # 5 s on an idle machine; all its parts have limits of a minute.
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1
TAIL_LINES = 20
PARTS = ("postgres", "valkey", "temporal", "registry", "mirror", "forge", "api", "gateway", "worker", "edge")
_UP = re.compile(r"stagely │ (\w+) is up \(([\d.]+) s\)")
_LAUNCHER = Path(__file__).parents[2] / "dev" / "launch.py"


@dataclass(frozen=True, slots=True)
class DemoSystem:
    """The running child. `pids`: it and what it started, to see afterwards that all have ended."""

    process: subprocess.Popen[bytes]
    state: Path
    log: Path

    def stop(self) -> None:
        """End it the ordinary way; it ends its children in order. Not in time: kill it, then the kernel ends them."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def pids(self) -> list[int]:
        """The child and its children now."""
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *(int(pid) for pid in listing.read_text().split())]
        except OSError:
            return [self.process.pid]


def start(state: Path, port_base: int, *, keep: bool, progress: Progress) -> DemoSystem:
    """Start `stagely dev` on `state` and wait until it is up.

    With `keep` it does not die with us. Raises NotAcceptable or CommandFailed with its own last lines.
    """
    log = state.parent / f"{state.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    dev = [sys.executable, "-m", "stagely.cli.main", "dev", "--state", str(state), "--port-base", str(port_base)]
    launcher = [] if keep else [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(signal.SIGTERM))]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*launcher, *dev],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it when the VMs are gone.
            env=_environment(os.environ),
        )
    system = DemoSystem(process, state, log)
    try:
        _wait_until_up(system, progress)
    except BaseException:
        system.stop()
        raise
    return system


def _wait_until_up(system: DemoSystem, progress: Progress) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    pause = threading.Event().wait
    told: dict[str, float] = {}
    while not _is_up(system):
        _tell_parts(system.log, told, progress)
        if system.process.poll() is not None:
            kind = NotAcceptable if system.process.returncode == EXIT_REFUSED else CommandFailed
            raise kind(f"stagely dev did not start. Its log: {system.log}\n{tail(system.log)}")
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"stagely dev was not up after {START_TIMEOUT_S:g} s. Its log: {system.log}\n{tail(system.log)}"
            )
        progress.waiting(f"starting {', '.join(name for name in PARTS if name not in told)}")
        pause(POLL_S)
    _tell_parts(system.log, told, progress)


def _tell_parts(log: Path, told: dict[str, float], progress: Progress) -> None:
    for name, seconds in parts_up(log).items():
        if name not in told:
            progress.ended(name, seconds)
            told[name] = seconds


def parts_up(log: Path) -> dict[str, float]:
    """What `stagely dev` says to be up already, and how many seconds that took."""
    try:
        return {name: float(seconds) for name, seconds in _UP.findall(log.read_text(errors="replace"))}
    except OSError:
        return {}


def _is_up(system: DemoSystem) -> bool:
    try:
        return int(json.loads((system.state / "dev.json").read_text())["pid"]) == system.process.pid
    except (OSError, ValueError, KeyError):
        return False


def tail(log: Path) -> str:
    """The last lines of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The state is named by the option alone: STAGELY_STATE of the person's own system must not leak in."""
    return {key: value for key, value in environ.items() if key != "STAGELY_STATE"}
