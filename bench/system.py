"""Target `stagely`: a `stagely dev` of its own, driven through the CLI's own functions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from bench.poll import first_200
from bench.repository import Repository
from stagely.cli import commands, repository
from stagely.cli.bodies import EnvironmentView
from stagely.cli.commands import Session
from stagely.cli.installation import Installation, find
from stagely.cli.progress import Progress
from stagely.cli.pulls import Pushed
from stagely.cli.refusal import NotAcceptable
from stagely.states import GONE, EnvironmentState

START_LIMIT_S = 120.0  # 6 to 15 s were seen; a first start makes databases.
STOP_LIMIT_S = 60.0
RUN_LIMIT_S = 300.0
POLL_S = 0.1

T = TypeVar("T")


class SystemFailed(Exception):
    """`stagely dev` did not start, or a preview failed; the text says which and where the log is."""


@dataclass(frozen=True, slots=True)
class Answered:
    """`seconds` from the webhook's arrival to the first right answer; `phases` as the api tells them."""

    seconds: float
    phases: Mapping[str, float]


@contextlib.asynccontextmanager
async def running(state: Path, port_base: int) -> AsyncIterator[Installation]:
    """A `stagely dev` on `state`; afterwards it is stopped and everything of it removed. Raises SystemFailed."""
    state.mkdir(parents=True, exist_ok=True)
    log = state.parent / f"{state.name}.log"
    argv = ("dev", "--state", str(state), "--port-base", str(port_base))
    with log.open("wb") as output:
        process = await _stagely(*argv, output=output.fileno())
    try:
        yield await _ready(state, process, log)
    finally:
        await _stop(process)
        cleaning = await _stagely("clean", "--state", str(state), output=sys.stderr.fileno())
        async with asyncio.timeout(STOP_LIMIT_S):
            await cleaning.wait()


class Previews:
    """Opens, moves and closes one pull request and waits for what a visitor sees."""

    def __init__(self, installation: Installation, source: Repository) -> None:
        self._installation = installation
        self._source = source
        self._pushed: Pushed | None = None

    async def run(self, verb: str, wanted: str) -> Answered:
        """`verb` is open or push. Raises SystemFailed when the preview fails."""
        asked = time.time()
        self._pushed = await asyncio.to_thread(self._push, verb)
        async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
            answered = group.create_task(self._answered(wanted))
            settled = group.create_task(self._settled())
        environment = settled.result()
        return Answered(answered.result() - _webhook_at(environment, asked), environment.phases)

    async def close(self) -> None:
        """Close it and wait until nothing of it is left."""
        if self._pushed is None:
            return
        pushed = self._pushed
        await asyncio.to_thread(self._with_session, lambda here: here.pulls.close(pushed.repo, pushed.pr))
        async with asyncio.timeout(RUN_LIMIT_S):
            await self._until(lambda environment: environment.state in GONE)

    def _push(self, verb: str) -> Pushed:
        checkout = repository.look(self._source.path)
        if verb == "open":
            return self._with_session(lambda here: here.pulls.open(checkout, None))
        return self._with_session(lambda here: here.pulls.push(checkout, None))

    async def _answered(self, wanted: str) -> float:
        environment = await self._until(lambda environment: bool(environment.urls))
        host = urlsplit(next(iter(environment.urls.values()))).netloc
        return await first_200(("127.0.0.1", self._installation.edge_port), host, wanted, RUN_LIMIT_S)

    async def _settled(self) -> EnvironmentView:
        environment = await self._until(self._is_over)
        if environment.state != EnvironmentState.READY:
            raise SystemFailed(f"{environment.repo}: {environment.state}: {environment.message} {environment.failure}")
        return environment

    def _is_over(self, environment: EnvironmentView) -> bool:
        over = environment.state in (EnvironmentState.READY, EnvironmentState.FAILED)
        return over and self._pushed is not None and environment.commit == self._pushed.sha

    async def _until(self, is_true: Callable[[EnvironmentView], bool]) -> EnvironmentView:
        while True:
            found = await asyncio.to_thread(self._with_session, self._look)
            if found is not None and is_true(found):
                return found
            await asyncio.sleep(POLL_S)

    def _look(self, here: Session) -> EnvironmentView | None:
        assert self._pushed is not None
        found = here.api.environments(project=self._pushed.project, pr=self._pushed.pr, gone_too=True)
        return here.api.environment(found[0].id) if found else None

    def _with_session(self, act: Callable[[Session], T]) -> T:
        with _session(self._installation) as here:
            return act(here)


@contextmanager
def _session(installation: Installation) -> Iterator[Session]:
    with Path(os.devnull).open("w") as nowhere, commands.session(installation.state, Progress(nowhere)) as here:
        yield here


def _webhook_at(environment: EnvironmentView, asked: float) -> float:
    """When the api took the webhook of the latest run: the timeline's first step."""
    run_id = environment.run.id if environment.run else ""
    found = [step.started_at for step in environment.steps if step.name == "webhook" and step.run_id == run_id]
    return max(found, default=asked)


async def _ready(state: Path, process: asyncio.subprocess.Process, log: Path) -> Installation:
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while process.returncode is None:
                try:
                    return find(state)
                except NotAcceptable:
                    await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise SystemFailed(f"stagely dev was not up after {START_LIMIT_S:.0f} s; its log: {log}") from error
    raise SystemFailed(f"stagely dev ended with exit code {process.returncode}; its log: {log}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _stagely(*arguments: str, output: int) -> asyncio.subprocess.Process:
    argv = (sys.executable, "-m", "stagely.cli.main", *arguments)
    return await asyncio.create_subprocess_exec(*argv, stdout=output, stderr=output, start_new_session=True)
