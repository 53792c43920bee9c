"""Executing the core's commands: each in a task of its own, each answered by exactly one Result."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from agent.build import Builder
from agent.containers import Containers
from agent.deploy import Deployer
from agent.engine import Engine, EngineError
from agent.mask import Patterns
from agent.outbox import Outbox
from agent.protocol import AgentState, Build, Deploy, Failure, Outcome, Prepare, Result
from agent.pull import Puller
from agent.report import Reporter, StepFailed
from agent.streams import Batcher

DISK_FULL = "the disk of the VM is full"

log = logging.getLogger("stagely.agent.commands")

Job = Build | Deploy | Prepare
Finished = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work."""

    builder: Builder
    deployer: Deployer
    engine: Engine
    containers: Containers


@dataclass(slots=True)
class _Running:
    """One command's task. A task that is cancelled before its first step never runs, so it cannot answer."""

    job: Job
    task: asyncio.Task[None]
    has_begun: bool = False
    is_stopped: bool = False


class Commands:
    """`finished` is told (command_id, seq of its Result). `run` must be running while commands are executed."""

    def __init__(self, crew: Crew, outbox: Outbox, patterns: Patterns, batcher: Batcher, finished: Finished) -> None:
        self.rest_state = AgentState.IDLE
        self._crew = crew
        self._outbox = outbox
        self._patterns = patterns
        self._batcher = batcher
        self._finished = finished
        self._running: dict[str, _Running] = {}

    @property
    def state(self) -> AgentState:
        """What is going on; between commands what the last deployment came to."""
        kinds = {type(running.job) for running in self._running.values()}
        if Deploy in kinds:
            return AgentState.DEPLOYING
        return AgentState.BUILDING if Build in kinds else self.rest_state

    def execute(self, job: Job, group: asyncio.TaskGroup) -> None:
        log.info("command %s begins: %s", job.command_id, type(job).__name__.lower())
        self._running[job.command_id] = _Running(job, group.create_task(self._answer(job)))

    def cancel(self, stop_id: str, target_id: str) -> None:
        """End this command if it runs (its Result says cancelled) and answer the Stop.

        A command that has not begun, or that comes only after its Stop, is answered here: the stored Result keeps it
        from ever being executed, also after a restart.
        """
        running = self._running.get(target_id)
        if running is not None:
            running.is_stopped = True
            running.task.cancel()
        if running is not None and not running.has_begun:
            del self._running[target_id]
        if target_id not in self._running and target_id not in self._outbox.results:
            self.answer(Result(0, target_id, Outcome.CANCELLED))
        self.answer(Result(0, stop_id, Outcome.SUCCEEDED))

    def answer(self, result: Result) -> int:
        seq = self._outbox.result(result)
        self._finished(result.command_id, seq)
        return seq

    async def _answer(self, job: Job) -> None:
        running = self._running[job.command_id]
        running.has_begun = True
        state = AgentState.BUILDING if isinstance(job, Build) else AgentState.DEPLOYING
        report = Reporter(job.command_id, state, self._outbox, self._patterns, self._batcher)
        try:
            seq = await self._carry_out(job, report)
        except asyncio.CancelledError:
            if not running.is_stopped:
                raise  # The agent itself ends: no answer, the core sends the command again.
            seq = report.finish(Outcome.CANCELLED)
        except StepFailed as error:
            seq = self._fail(job, report, _with_cause(error.failure))
        except (EngineError, OSError) as error:
            seq = self._fail(job, report, Failure(report.current_step, _problem(error)))
        except Exception as error:  # An answer must come whatever is wrong with us; the journal has the traceback.
            log.exception("command %s: the agent is wrong", job.command_id)
            message = (
                f"the agent has a defect: {type(error).__name__}: {error}. `journalctl -u stagely-agent` shows more."
            )
            seq = self._fail(job, report, Failure(report.current_step, message))
        finally:
            self._running.pop(job.command_id, None)
        self._finished(job.command_id, seq)
        log.info("command %s ended: %s", job.command_id, self._outbox.results[job.command_id].outcome)

    async def _carry_out(self, job: Job, report: Reporter) -> int:
        if isinstance(job, Build):
            return report.finish(Outcome.SUCCEEDED, digest=await self._crew.builder.build(job, report))
        if isinstance(job, Deploy):
            services = await self._crew.deployer.deploy(job, report)
            self.rest_state = AgentState.HEALTHY
            report.say(AgentState.HEALTHY, "", services)
            return report.finish(Outcome.SUCCEEDED, services=services)
        await self._prepare(job, report)
        return report.finish(Outcome.SUCCEEDED)

    async def _prepare(self, job: Prepare, report: Reporter) -> None:
        """Pull ahead; what fails here fails again, with its reason, in the deployment."""
        stream = report.stream("deploy")
        puller = Puller(self._crew.engine, stream)
        try:
            with report.step("pull"):
                await puller.pull_all(dict.fromkeys(job.pull, ""))
        except (StepFailed, EngineError, OSError) as error:
            stream.line(f"Not pulled ahead: {error}")
        finally:
            stream.close()

    def _fail(self, job: Job, report: Reporter, failure: Failure) -> int:
        services = self._crew.containers.services if isinstance(job, Deploy) else ()
        if isinstance(job, Deploy):
            self.rest_state = AgentState.FAILED
            report.say(AgentState.FAILED, failure.message, services)
        return report.finish(Outcome.FAILED, failure=failure, services=services)


def _with_cause(failure: Failure) -> Failure:
    """git, Docker and BuildKit say it each in its own long sentence."""
    is_full = os.strerror(errno.ENOSPC).lower() in failure.message.lower()
    return dataclasses.replace(failure, message=f"{DISK_FULL}: {failure.message}") if is_full else failure


def _problem(error: EngineError | OSError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{DISK_FULL}. Choose a larger machine, or make the images and the data smaller."
    return f"the preview's machine has a problem: {error}."
