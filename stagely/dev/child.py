"""One supervised program: started so that it dies with us, its output kept, restarted when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from stagely.dev.console import Console
from stagely.dev.probes import PAUSE_S, Probe
from stagely.dev.refusal import StartFailed

TAIL_LINES = 20
MAX_LINE_BYTES = 64 * 1024  # A longer line is cut into pieces, so that a child can never fill our memory.
KEPT_LOG_BYTES = 10 * 1024**2  # A longer log of earlier runs is moved to .1 when the child starts.
FIRST_BACK_OFF_S = 0.25
LONGEST_BACK_OFF_S = 15.0
LAST_WORDS_S = 1.0  # Output after the end can only come from what it left running, which was just killed.
STEADY_S = 60.0  # Running this long forgives earlier crashes.
START_ATTEMPTS = 4  # A start right after a kill -9 may meet the old run's port or lock file for a second or two.
_FATAL = re.compile(r"\b(FATAL|PANIC|panic)\b|level\W+(fatal|panic)")
_LAUNCHER = Path(__file__).parent / "launch.py"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and how to know and end it.

    layer: children of a lower layer start before and stop after those of a higher one.
    ready_line: it is ready only once its output holds this; "" for a program whose probe says enough.
    is_quiet: the terminal shows only what ends it, and nothing while it stops; the log file has every line.
    death_signal: what the kernel sends it when the supervisor is gone. Engines that keep data get their stop signal.
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe
    layer: int
    env: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_s: float = 30.0
    ready_line: str = ""
    is_quiet: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL


class Child:
    """Keeps one program running from `keep` until `stop`."""

    def __init__(self, spec: ChildSpec, logs: Path, console: Console) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.starts = 0
        self._console = console
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._is_ready = False
        self._has_told = False
        self._has_given_up = False
        self._stopping = asyncio.Event()
        self._started = asyncio.Condition()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def keep(self) -> None:
        """Run it again whenever it ends, slower each time, until `stop`. Before it was ever ready: a few times only."""
        back_off_s = FIRST_BACK_OFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if not self._is_ready and self.starts >= START_ATTEMPTS:
                self._has_given_up = True
                return
            back_off_s = FIRST_BACK_OFF_S if time.monotonic() - started > STEADY_S else back_off_s
            self._console.warn(f"{self.spec.name} {_ended(code)}; starting it again in {back_off_s:g} s ({self.log})")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), back_off_s)
            back_off_s = min(back_off_s * 2, LONGEST_BACK_OFF_S)

    async def wait_ready(self) -> None:
        """Return when it answers. Raises StartFailed with its last lines when it gave up or was too slow."""
        try:
            async with asyncio.timeout(self.spec.ready_timeout_s):
                while not await self._probe():
                    if self._has_given_up:
                        raise StartFailed(self._explain(f"ended {self.starts} times before it was ready"))
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise StartFailed(self._explain(f"was not ready after {self.spec.ready_timeout_s:g} s")) from None
        self._is_ready = True

    async def wait_started(self, starts: int) -> None:
        """Return when it was started at least this many times. The caller sets the deadline."""
        async with self._started:
            await self._started.wait_for(lambda: self.starts >= starts)

    async def stop(self) -> None:
        """End it: its own stop signal, then SIGKILL when its stop time is over."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        _send(process.pid, self.spec.stop_signal)
        try:
            async with asyncio.timeout(self.spec.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            self._console.warn(f"{self.spec.name} did not stop within {self.spec.stop_timeout_s:g} s; killing it")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it now, without a chance to clean up."""
        self._stopping.set()
        if (pid := self.pid) is not None:
            _send(pid, signal.SIGKILL)

    async def _probe(self) -> bool:
        is_told = not self.spec.ready_line or self._has_told
        return self.pid is not None and is_told and await self.spec.probe() and self.pid is not None

    async def _run_once(self) -> int:
        async with _pipe() as (output, writing_end):
            process = await self._spawn(writing_end)
            os.close(writing_end)
            async with asyncio.TaskGroup() as group:
                copying = group.create_task(self._copy_output(output))
                try:
                    code = await process.wait()
                finally:
                    _sweep_group(process.pid)
                await asyncio.wait([copying], timeout=LAST_WORDS_S)
                copying.cancel()
        return code

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        launcher = (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(self.spec.death_signal)))
        process = await asyncio.create_subprocess_exec(
            *launcher,
            *self.spec.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **self.spec.env},
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we end the children in order.
        )
        self._process = process
        self._has_told = False
        self.starts += 1
        async with self._started:
            self._started.notify_all()
        if self._stopping.is_set():  # stop() came while it was being started and had nothing to stop.
            _send(process.pid, self.spec.stop_signal)
        return process

    async def _copy_output(self, output: asyncio.StreamReader) -> None:
        _rotate(self.log)
        with self.log.open("ab", buffering=0) as file:
            while line := await _read_line(output):
                self._keep_line(line, file)

    def _keep_line(self, raw: bytes, file: FileIO) -> None:
        try:
            file.write(raw if raw.endswith(b"\n") else raw + b"\n")
        except OSError as error:
            self._console.warn(f"{self.log} cannot be written: {error.strerror}. Free some disk space.")
        text = raw.decode(errors="replace").rstrip()
        self._tail.append(text)
        self._has_told = self._has_told or self.spec.ready_line in text
        if self._is_worth_showing(text):
            self._console.child(self.spec.name, text)

    def _is_worth_showing(self, text: str) -> bool:
        return not self.spec.is_quiet or (not self._stopping.is_set() and _FATAL.search(text) is not None)

    def _explain(self, what: str) -> str:
        lines = "\n".join(f"    {line}" for line in self._tail)
        return f"{self.spec.name} {what}. Its log: {self.log}\n{lines}"


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A reader and the file descriptor to write to, which the caller closes.

    Our own, because asyncio's PIPE makes `wait()` wait for everybody who inherited it: a killed program's children too.
    """
    reading_end, writing_end = os.pipe()
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading_end, "rb", 0)
    )
    try:
        yield reader, writing_end
    finally:
        transport.close()


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, a piece of it when it is too long, b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as overrun:
        return await stream.readexactly(overrun.consumed)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _sweep_group(pid: int) -> None:
    """Kill what a program left in its process group (a git or docker command it was running)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > KEPT_LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
