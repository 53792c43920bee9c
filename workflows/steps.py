"""Timeline steps out of what an agent measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from stagely.states import RunState
from workflows.messages import AgentEvent
from workflows.orders import Step


def steps_of(result: AgentEvent, names: Sequence[str], subject: str, ended_at: float) -> tuple[Step, ...]:
    """The steps that `result.phases` measured, laid end to end so that the last one ends at `ended_at` (Unix seconds).

    The durations are the VM's own, so a clock that is off there moves nothing. A failed command's last step failed.
    """
    measured = [(name, result.phases[name]) for name in names if name in result.phases]
    at = ended_at - sum(seconds for _, seconds in measured)
    failed = result.failure.step if result.failure else ""
    steps = []
    for name, seconds in measured:
        state = RunState.FAILED if name == failed else RunState.COMPLETED
        steps.append(Step(name, state, at, subject, at + seconds))
        at += seconds
    return tuple(steps)
