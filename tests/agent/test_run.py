"""Programs end, whatever happens to whoever started them."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.run import Finished, Program, TookTooLong, capture, environment, run

LIMIT_S = 20.0


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while _is_alive(pid):  # noqa: ASYNC110  # A grandchild's end wakes nobody.
            await asyncio.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_output_and_exit_code_are_returned() -> None:
    program = Program(["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT_S)

    assert await capture(program) == Finished(3, "out\n", "err\n")


async def test_at_the_deadline_the_whole_group_is_ended() -> None:
    seen = bytearray()
    program = Program(["sh", "-c", "sleep 1000 & echo $!; wait"], 0.5)

    with pytest.raises(TookTooLong, match=r"sh took longer than 0\.5 s"):
        await run(program, seen.extend, seen.extend)

    await until_gone(int(seen))


async def test_cancelling_ends_the_whole_group() -> None:
    seen = bytearray()
    began = asyncio.Event()

    def note(chunk: bytes) -> None:
        seen.extend(chunk)
        began.set()

    program = Program(["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait"], LIMIT_S)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(run(program, note, note))
        await began.wait()
        task.cancel()

    await until_gone(int(seen))


def test_only_what_a_program_needs_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELY_SOMETHING", "private")
    monkeypatch.delenv("HOME", raising=False)

    variables = environment({"ADDED": "1"})

    assert variables["ADDED"] == "1"
    assert variables["HOME"] == "/root"
    assert variables["PATH"] == os.environ["PATH"]
    assert "STAGELY_SOMETHING" not in variables
