"""The supervisor with real programs: crash, order of stopping, and nothing left when it is killed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stagely.dev import probes
from stagely.dev.child import ChildSpec
from stagely.dev.console import Console
from stagely.dev.refusal import StartFailed
from stagely.dev.supervisor import Supervisor
from stagely.processes import is_alive

WAIT_S = 20.0  # Deadline of every wait here; all take well below a second on an idle machine.
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
while True:
    signal.pause()
"""
SLEEPER = "import signal, sys, time\nprint('here', flush=True)\nsignal.pause()"


def said(path: Path, text: str) -> probes.Probe:
    """Ready when the program wrote `text` into `path`."""

    async def ask() -> bool:
        return path.exists() and text in path.read_text()

    return ask


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not claim():  # noqa: ASYNC110  # The world outside has no event to wait for.
            await asyncio.sleep(0.02)


def program(
    name: str, source: str, probe: Callable[[], Awaitable[bool]], layer: int = 0, stop_timeout_s: float = 5
) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", source), probe, layer, {}, WAIT_S, stop_timeout_s=stop_timeout_s)


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


async def test_crashed_child_is_started_again_and_said_so(tmp_path: Path, shown: io.StringIO) -> None:
    log = tmp_path / "one.log"

    async with Supervisor(tmp_path, Console(shown)).running() as supervisor:
        child = await supervisor.start(program("one", SLEEPER, said(log, "here")))
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first) and log.read_text().count("here") == 2)

    assert "one was killed by SIGKILL; starting it again in 0.25 s" in shown.getvalue()


async def test_higher_layers_end_before_lower_ones(tmp_path: Path, shown: io.StringIO) -> None:
    order = tmp_path / "order"
    source = f"""
import signal, sys
def end(*_):
    open({str(order)!r}, "a").write(sys.argv[0] + NAME + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("here", flush=True)
signal.pause()
"""

    async with Supervisor(tmp_path, Console(shown)).running() as supervisor:
        for name, layer in (("engine", 0), ("core", 1), ("edge", 2)):
            text = f"NAME = {name!r}\n" + source.replace("sys.argv[0] + ", "")
            await supervisor.start(program(name, text, said(tmp_path / f"{name}.log", "here"), layer))

    assert order.read_text() == "edge core engine "


async def test_child_that_ignores_sigterm_is_killed_after_its_stop_time(tmp_path: Path, shown: io.StringIO) -> None:
    spec = program("stubborn", STUBBORN, said(tmp_path / "stubborn.log", "here"), stop_timeout_s=0.3)

    async with Supervisor(tmp_path, Console(shown)).running() as supervisor:
        child = await supervisor.start(spec)
        pid = child.pid

    assert pid is not None
    assert not is_alive(pid)
    assert "stubborn did not stop within 0.3 s; killing it" in shown.getvalue()


async def test_child_that_never_starts_is_given_up_with_its_last_lines(tmp_path: Path, shown: io.StringIO) -> None:
    spec = program("broken", "print('no such table: users'); raise SystemExit(4)", said(tmp_path / "never", "x"))

    async with Supervisor(tmp_path, Console(shown)).running() as supervisor:
        with pytest.raises(StartFailed, match="no such table: users") as failed:
            await supervisor.start(spec)

    assert str(failed.value).startswith("broken ended 4 times before it was ready. Its log: ")


async def test_what_a_child_left_running_is_killed_with_it(tmp_path: Path, shown: io.StringIO) -> None:
    source = "import subprocess\np = subprocess.Popen(['sleep', '600'])\nprint('pid', p.pid, '.', flush=True)\np.wait()"
    log = tmp_path / "parent.log"

    async with Supervisor(tmp_path, Console(shown)).running() as supervisor:
        await supervisor.start(program("parent", source, said(log, ".")))
        grandchild = int(log.read_text().split()[1])

    await until(lambda: not is_alive(grandchild))


async def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    source = f"""
import asyncio, io, sys
from pathlib import Path
from stagely.dev.child import ChildSpec
from stagely.dev.console import Console
from stagely.dev.supervisor import Supervisor
async def main():
    async def ready(): return Path({str(tmp_path)!r}, "child.log").exists()
    source = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    spec = ChildSpec("child", (sys.executable, "-c", source), ready, 0)
    async with Supervisor(Path({str(tmp_path)!r}), Console(io.StringIO())).running() as supervisor:
        child = await supervisor.start(spec)
        print(child.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        child = int(await process.stdout.readline())
    assert is_alive(child)

    process.kill()
    await process.wait()

    await until(lambda: not is_alive(child))


async def test_second_ctrl_c_ends_all_at_once(tmp_path: Path, shown: io.StringIO) -> None:
    spec = program("stubborn", STUBBORN, said(tmp_path / "stubborn.log", "here"), stop_timeout_s=600)

    async with asyncio.timeout(WAIT_S), Supervisor(tmp_path, Console(shown)).running() as supervisor:
        child = await supervisor.start(spec)
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.stop())
            await asyncio.sleep(0)
            supervisor.kill()

    assert child.pid is None
