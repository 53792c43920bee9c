"""One workflow as successive builds of a program have it. Alone in its file: the sandbox imports that for every run."""

from __future__ import annotations

from temporalio import workflow

DAY_S = 24 * 3600


class _Waiting:
    """What both builds share: a run that waits to be told to end."""

    is_told = False

    @workflow.signal
    def end(self) -> None:
        self.is_told = True

    @workflow.query
    def is_waiting(self) -> bool:
        return not self.is_told


@workflow.defn(name="Rollout")
class First(_Waiting):
    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.is_told, timeout=DAY_S)
        return "first"


@workflow.defn(name="Rollout")
class Second(_Waiting):
    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.is_told, timeout=DAY_S)
        return "second"


@workflow.defn(name="Rollout")
class Incompatible(_Waiting):
    """It waits without the timer that every run of the other builds has started."""

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.is_told)
        return "never"


@workflow.defn(name="Other")
class Other(_Waiting):
    @workflow.run
    async def run(self) -> str:
        return "other"
