"""Running programs: argument lists, no shell, a process group that always ends, output as it comes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TERM_WAIT_S = 5.0  # git and the Docker command line clean up within a second; then SIGKILL.
CHUNK_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "DOCKER_CONFIG", "BUILDX_CONFIG")

Sink = Callable[[bytes], None]


class TookTooLong(Exception):
    """The program was killed at its deadline."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `env` is added to a short list of the agent's own variables; secrets go there, never into `argv`."""

    argv: Sequence[str]
    timeout_s: float
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    exit_code: int
    stdout: str
    stderr: str


async def run(program: Program, on_stdout: Sink, on_stderr: Sink) -> int:
    """The exit code (negative: the signal that ended it). Raises TookTooLong.

    However this call ends, cancelled included, no process of the group is left.
    """
    process = await asyncio.create_subprocess_exec(
        *program.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=program.cwd,
        env=environment(program.env),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(program.timeout_s):
            async with asyncio.TaskGroup() as group:
                group.create_task(_drain(process.stdout, on_stdout))
                group.create_task(_drain(process.stderr, on_stderr))
            return await process.wait()
    except TimeoutError as error:
        raise TookTooLong(f"{program.argv[0]} took longer than {program.timeout_s:g} s") from error
    finally:
        await _end_group(process)


async def capture(program: Program) -> Finished:
    """Run to the end and return what it wrote."""
    out, err = bytearray(), bytearray()
    exit_code = await run(program, out.extend, err.extend)
    return Finished(exit_code, out.decode(errors="replace"), err.decode(errors="replace"))


def first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group's first failing task raised; the others failed with it or after it."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """A program's variables: those of the agent that matter, and `added`. systemd gives a service no HOME."""
    own = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"} | own | dict(added)


async def _drain(pipe: asyncio.StreamReader, sink: Sink) -> None:
    while chunk := await pipe.read(CHUNK_BYTES):
        sink(chunk)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Ask the group to end, then make it; also when this wait is itself cancelled."""
    if process.returncode is not None:
        _signal_group(process.pid, signal.SIGKILL)  # What the program left behind in its group.
        return
    _signal_group(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(TERM_WAIT_S):
            await process.wait()
    except TimeoutError:
        pass  # The group is killed below.
    finally:
        _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # Nobody is left in it.
