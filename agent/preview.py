"""What this machine shows: the last deployment that came up, its ingress ports and its services' logs.

It is remembered on disk, so that after a restart of the agent the ports are open before anything else is done: a
preview keeps serving while the core is away.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.containers import Containers
from agent.files import read_text, write_private
from agent.ingress import Ingress
from agent.logs import ServiceLogs
from agent.protocol import Exposed

log = logging.getLogger("stagely.agent.preview")


@dataclass(frozen=True, slots=True)
class Shown:
    """`command_id` is the deployment's, which the logs of its services carry."""

    project: str
    command_id: str
    expose: tuple[Exposed, ...]


class Preview:
    def __init__(self, state_dir: Path, containers: Containers, ingress: Ingress, logs: ServiceLogs) -> None:
        self._path = state_dir / "preview.json"
        self._containers = containers
        self._ingress = ingress
        self._logs = logs
        self.exposed: tuple[Exposed, ...] = ()

    def begin(self, project: str, command_id: str) -> None:
        """A deployment starts its containers now."""
        self._logs.belong_to(command_id)
        self._containers.choose(project)

    def show(self, shown: Shown) -> None:
        """Lead traffic to this deployment's services, now and after a restart of the agent."""
        write_private(self._path, json.dumps(asdict(shown)))
        self._lead_to(shown.expose)

    def restore(self) -> bool:
        """Show again what was shown before the agent restarted; False when there was nothing."""
        text = read_text(self._path)
        if text is None:
            return False
        try:
            shown = _parse(text)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("preview state is unreadable, waiting for the next deployment: %s", error)
            return False
        self.begin(shown.project, shown.command_id)
        self._lead_to(shown.expose)
        return True

    def _lead_to(self, exposed: tuple[Exposed, ...]) -> None:
        self.exposed = exposed
        self._ingress.expose(exposed)


def _parse(text: str) -> Shown:
    loaded = json.loads(text)
    expose = tuple(Exposed(str(e["service"]), int(e["port"]), str(e["url"])) for e in loaded["expose"])
    return Shown(str(loaded["project"]), str(loaded["command_id"]), expose)
