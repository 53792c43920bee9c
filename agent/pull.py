"""Bringing images to this machine, those that are here already for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engine import Engine, EngineError
from agent.protocol import Failure
from agent.report import StepFailed
from agent.run import Program, TookTooLong, capture, first
from agent.streams import LogStream

PULL_TIMEOUT_S = 900.0  # A 10 GB image at 100 Mbit/s.
AT_ONCE = 4  # The Engine itself fetches three layers of each image at a time.


@dataclass(frozen=True, slots=True)
class Puller:
    """`variables` carry the registry's credentials, see registry.credentials."""

    engine: Engine
    stream: LogStream
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def pull_all(self, images: Mapping[str, str]) -> None:
        """Pull each of `images` (reference: the service that needs it).

        Raises what the first that failed did: StepFailed, EngineError or OSError.
        """
        slots = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for reference, service in images.items():
                    group.create_task(self._pull(reference, service, slots))
        except* (StepFailed, EngineError, OSError) as failures:
            raise first(failures) from None

    async def _pull(self, reference: str, service: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            if await self.engine.image(reference) is not None:
                self.stream.line(f"{reference} is here already")
                return
            began = time.monotonic()
            program = Program(["docker", "pull", "--quiet", "--", reference], PULL_TIMEOUT_S, env=self.variables)
            try:
                finished = await capture(program)
            except TookTooLong as error:
                raise _failed(reference, service, f"it took longer than {PULL_TIMEOUT_S:g} s", 1) from error
            if finished.exit_code:
                raise _failed(reference, service, _last_line(finished.stderr), finished.exit_code)
            self.stream.line(f"Pulled {reference} in {time.monotonic() - began:.1f} s")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error response from daemon: ") if lines else "docker gave no reason"


def _failed(reference: str, service: str, reason: str, exit_code: int) -> StepFailed:
    subject = f"service {service}: " if service else ""
    message = f"{subject}the image {reference} could not be pulled: {reason}. Check its name and whether it is public."
    return StepFailed(Failure("pull", message, service, exit_code))
