"""What one command tells while it runs: its streams, its steps with their seconds, and how it failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent.mask import Patterns
from agent.outbox import Outbox
from agent.protocol import AgentState, Failure, Outcome, Result, Service
from agent.streams import Batcher, LogStream

MESSAGE_CHARS = 2000  # A person reads it in a comment; the log has the rest.


class StepFailed(Exception):
    """A command cannot go on. `failure` says why, in the words that the pull request's author will read."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Reporter:
    """One command's voice. Everything it says is masked."""

    def __init__(
        self, command_id: str, state: AgentState, outbox: Outbox, patterns: Patterns, batcher: Batcher
    ) -> None:
        self.command_id = command_id
        self.phases: dict[str, float] = {}
        self.current_step = ""
        self._state = state
        self._outbox = outbox
        self._patterns = patterns
        self._batcher = batcher

    def hide(self, *values: str) -> None:
        """Mask these from now on; empty ones are ignored."""
        self._patterns.add(value for value in values if value)

    def stream(self, name: str) -> LogStream:
        def write(data: str) -> None:
            self._outbox.log(self.command_id, name, data)

        return LogStream(self._patterns, write, self._batcher.wake)

    def begin(self, step: str, message: str = "") -> None:
        """Say that this step begins."""
        self.current_step = step
        self._batcher.flush()
        self._outbox.status(self.command_id, self._state, step, self._short(message))

    @contextmanager
    def step(self, name: str, message: str = "") -> Iterator[None]:
        """Say that this step begins and note its seconds; a step entered twice adds up."""
        self.begin(name, message)
        began = time.monotonic()
        try:
            yield
        finally:
            self.add_seconds(name, time.monotonic() - began)

    def add_seconds(self, step: str, seconds: float) -> None:
        self.phases[step] = round(self.phases.get(step, 0.0) + seconds, 3)

    def finish(
        self,
        outcome: Outcome,
        digest: str = "",
        failure: Failure | None = None,
        services: tuple[Service, ...] = (),
    ) -> int:
        """Say the Result, after everything that was said before it, and return its seq."""
        self._batcher.flush()
        masked = self._masked(failure) if failure else None
        return self._outbox.result(Result(0, self.command_id, outcome, digest, masked, services, self.phases))

    def say(self, state: AgentState, message: str, services: tuple[Service, ...] = ()) -> None:
        self._outbox.status(self.command_id, state, "", self._short(message), services)

    def _masked(self, failure: Failure) -> Failure:
        return Failure(
            failure.step,
            self._short(failure.message),
            failure.subject,
            failure.exit_code,
            tuple(self._short(line) for line in failure.tail),
        )

    def _short(self, text: str) -> str:
        # A file's name may hold what is no text; the answer must come all the same.
        sayable = text.replace("\x00", "\ufffd").encode(errors="replace").decode()
        clean = self._patterns.hide(sayable)
        return clean if len(clean) <= MESSAGE_CHARS else clean[: MESSAGE_CHARS - 1] + "…"
