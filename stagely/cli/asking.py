"""Asking the api for an action until somebody took it; always under the same key, so that it is done once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stagely.cli.api import ApiClient
from stagely.cli.bodies import ActionView, EnvironmentView
from stagely.cli.refusal import CommandFailed, NotAcceptable, Refused
from stagely.ids import mint

ASK_TIMEOUT_S = 30.0  # A worker that is being replaced is back within seconds.
PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class Action:
    """`key` names the intention: under the same one nothing is done twice."""

    name: str
    key: str
    body: dict[str, object]


def action(name: str, key: str | None = None, **body: object) -> Action:
    """An action under `key`, or under one of its own."""
    return Action(name, key or mint("cli", 21), body)


def ask(
    api: ApiClient,
    environment: EnvironmentView,
    wanted: Action,
    pause: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ActionView:
    """What became of it: done, or started for an environment that had ended.

    Raises:
        NotAcceptable: it was refused, in the workflow's words.
        CommandFailed: nobody took it within ASK_TIMEOUT_S; it may still be done.
    """
    pause, began = pause or threading.Event().wait, clock()
    while True:
        answer = _once(api, environment, wanted)
        if answer.outcome != "unanswered":
            return answer
        if clock() - began > ASK_TIMEOUT_S:
            raise CommandFailed(
                f"No worker took the {wanted.name} of pull request {environment.pr} within {ASK_TIMEOUT_S:.0f} s: "
                "logs/worker.log in the state folder says why. It may still be done. Ask again with the same key to "
                f"be sure that it is done once: --key {wanted.key}"
            )
        pause(PAUSE_S)


def _once(api: ApiClient, environment: EnvironmentView, wanted: Action) -> ActionView:
    try:
        return api.act(environment.id, wanted.name, wanted.key, wanted.body)
    except Refused as error:
        said = error.detail.removeprefix("body/").removesuffix(".")
        raise NotAcceptable(f"pull request {environment.pr} of {environment.repo}: {said}.") from error
