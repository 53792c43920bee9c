"""The containers of the preview as they are now: read once, then again at each event of the Engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any  # `docker inspect`; `parse` names every key it takes.

from agent.engine import Engine, EngineError
from agent.protocol import Service
from agent.times import unix_time

BURST_S = 0.02  # Compose makes several events at once: one look is enough for all.
RETRY_S = 1.0  # The Engine restarts within a few seconds.
_EVENTS = ["create", "start", "die", "destroy", "health_status", "oom", "pause", "unpause", "rename"]

log = logging.getLogger("stagely.agent.containers")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the last health check said."""

    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class Container:
    """Times are Unix seconds, 0 for never. `ports`: the host's port for a published container port.

    `start_error`: why the Engine could not start it ("exec: ... not found", "port is already allocated").
    """

    id: str
    service: str
    status: str
    exit_code: int
    health: str
    restarts: int
    created_at: float
    started_at: float
    finished_at: float
    restart_policy: str
    network_mode: str
    is_tty: bool
    is_out_of_memory: bool
    addresses: tuple[str, ...]
    ports: Mapping[int, int]
    last_probe: ProbeResult | None = None
    start_error: str = ""

    @property
    def as_service(self) -> Service:
        has_ended = self.status in ("exited", "dead", "restarting")
        return Service(self.service, self.status, self.health, self.exit_code if has_ended else None)


class Containers:
    """Keeps `current` true for one Compose project and calls `on_change` after each look."""

    def __init__(self, engine: Engine) -> None:
        self.current: tuple[Container, ...] = ()
        self.project = ""
        self.on_change: list[Callable[[], None]] = []
        self._engine = engine
        self._chosen = asyncio.Event()
        self._changed = asyncio.Event()

    def choose(self, project: str) -> None:
        """Which Compose project to look at; there is one preview on a VM."""
        if project != self.project:
            self.project = project
            self.current = ()
            self._chosen.set()

    def of(self, service: str) -> list[Container]:
        return [container for container in self.current if container.service == service]

    @property
    def services(self) -> tuple[Service, ...]:
        return tuple(container.as_service for container in self.current)

    async def refresh(self) -> None:
        """Look now. Raises EngineError."""
        project = self.project
        found = await self._engine.containers(project)
        if project != self.project:
            return
        self.current = tuple(sorted((parse(one) for one in found), key=lambda one: (one.service, one.created_at)))
        self._changed.set()
        for call in self.on_change:
            call()

    async def wait_for_change(self, at_most_s: float) -> None:
        """Return after the next look, or after this long."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()

    async def run(self) -> None:
        """Follow the Engine's events until cancelled; the Engine may come and go."""
        await self._chosen.wait()
        while True:
            try:
                await self._follow()
            except EngineError as error:
                log.info("engine events broke off: %s", error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        filters = {"type": ["container"], "event": _EVENTS, "label": ["com.docker.compose.project"]}
        # The first piece is empty and says that the Engine listens: nothing after it is missed.
        async with contextlib.aclosing(self._engine.stream("/events", filters=json.dumps(filters))) as events:
            async for _ in events:
                await asyncio.sleep(BURST_S)
                await self.refresh()


def parse(inspected: Mapping[str, Any]) -> Container:
    """A container of `docker inspect`."""
    state, config, host = inspected["State"], inspected["Config"], inspected["HostConfig"]
    settings = inspected.get("NetworkSettings") or {}
    health = state.get("Health") or {}
    return Container(
        id=inspected["Id"],
        service=(config.get("Labels") or {}).get("com.docker.compose.service", ""),
        status=state["Status"],
        exit_code=state.get("ExitCode", 0),
        health=_health(health),
        restarts=inspected.get("RestartCount", 0),
        created_at=unix_time(inspected["Created"]),
        started_at=unix_time(state.get("StartedAt", "")),
        finished_at=unix_time(state.get("FinishedAt", "")),
        restart_policy=(host.get("RestartPolicy") or {}).get("Name") or "no",
        network_mode=host.get("NetworkMode") or "",
        is_tty=bool(config.get("Tty")),
        is_out_of_memory=bool(state.get("OOMKilled")),
        addresses=_addresses(settings),
        ports=_ports(settings),
        last_probe=_last_probe(health),
        start_error=state.get("Error") or "",
    )


def _health(health: Mapping[str, Any]) -> str:
    status = health.get("Status") or ""
    return "" if status == "none" else str(status)


def _addresses(settings: Mapping[str, Any]) -> tuple[str, ...]:
    networks = (settings.get("Networks") or {}).values()
    return tuple(network["IPAddress"] for network in networks if network.get("IPAddress"))


def _ports(settings: Mapping[str, Any]) -> dict[int, int]:
    found = {}
    for named, bindings in (settings.get("Ports") or {}).items():
        port, _, kind = named.partition("/")
        if kind == "tcp" and bindings and bindings[0].get("HostPort"):
            found[int(port)] = int(bindings[0]["HostPort"])
    return found


def _last_probe(health: Mapping[str, Any]) -> ProbeResult | None:
    probes = health.get("Log") or []
    return ProbeResult(probes[-1].get("ExitCode", 0), str(probes[-1].get("Output", "")).strip()) if probes else None
