"""The preview's own logs: every service's containers, followed from their first line, also across our restarts."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from agent.containers import Container, Containers
from agent.engine import Engine, EngineError, log_entries
from agent.files import read_text, write_private
from agent.mask import Patterns
from agent.outbox import Outbox
from agent.streams import Batcher, LogStream
from agent.times import unix_time

PAUSE_S = 1.0  # The Engine may end a log at once, again and again: logging driver "none", a container that crashes.
ERROR_PAUSE_S = 5.0  # The Engine restarts within a few seconds; a log that it cannot read stays unreadable.
_STAMP = "%Y-%m-%dT%H:%M:%S.%f000Z"  # As the Engine writes it.
_ENDED = ("exited", "dead", "removing", "restarting")

log = logging.getLogger("stagely.agent.logs")


class ServiceLogs:
    """Follows what `containers` shows. How far each container's log was read is kept in `state_dir`."""

    def __init__(
        self,
        state_dir: Path,
        engine: Engine,
        containers: Containers,
        outbox: Outbox,
        patterns: Patterns,
        batcher: Batcher,
    ) -> None:
        self._positions = _Positions(state_dir / "service-logs.json")
        self._engine = engine
        self._containers = containers
        self._outbox = outbox
        self._patterns = patterns
        self._batcher = batcher
        self.command_id = ""
        self._following: set[str] = set()
        self._read_start: dict[str, float] = {}
        self._look = asyncio.Event()
        containers.on_change.append(self._look.set)

    def belong_to(self, command_id: str) -> None:
        """Lines that come from now on are of this deployment; those that found no room in the last one are of none."""
        if command_id != self.command_id and self._outbox.is_used_up(self.command_id):
            self._positions.skip_to(datetime.now(UTC).strftime(_STAMP))
            self._look.set()
        self.command_id = command_id

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._look.wait()
                self._look.clear()
                for container in self._containers.current:
                    if self._is_due(container):
                        self._following.add(container.id)
                        self._read_start[container.id] = container.started_at
                        group.create_task(self._follow(container))
                self._keep_only({container.id for container in self._containers.current})

    def _is_due(self, container: Container) -> bool:
        """A container that ended, or waits for its next start, is read once for each time that it was started."""
        if container.id in self._following or container.status == "created":
            return False
        if self._outbox.is_used_up(self.command_id):
            return False
        return container.status not in _ENDED or container.started_at != self._read_start.get(container.id)

    def _keep_only(self, containers: set[str]) -> None:
        self._positions.keep_only(containers)
        self._read_start = {key: start for key, start in self._read_start.items() if key in containers}

    async def _follow(self, container: Container) -> None:
        stream = LogStream(self._patterns, lambda data: self._say(container, data), self._batcher.wake)
        pause_s = PAUSE_S
        try:
            await self._read(container, stream)
        except EngineError as error:
            pause_s = ERROR_PAUSE_S
            self._read_start.pop(container.id, None)
            log.info("log of service %s broke off: %s", container.service, error)
        finally:
            stream.close()
        self._positions.said(container.id)
        self._positions.save()
        await asyncio.sleep(pause_s)
        self._following.discard(container.id)
        self._look.set()

    async def _read(self, container: Container, stream: LogStream) -> None:
        seen = self._positions.of(container.id)
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1", "since": _since(seen)}
        source = self._engine.stream(f"/containers/{container.id}/logs", **query)
        async for _, entry in log_entries(source, container.is_tty):
            stamp, _, text = entry.partition(b" ")
            position = stamp.decode("ascii", "replace")
            if position <= seen:  # `since` includes its own moment, and Docker's stamps have one width.
                continue
            await self._outbox.wait_for_room()
            if self._outbox.is_used_up(self.command_id):  # Reading on would only cost the user's CPU.
                self._outbox.log(self.command_id, f"service/{container.service}", "")
                return
            stream.feed(text)
            self._positions.reached(container.id, position, is_whole=stream.is_between_lines)
        self._positions.reached(container.id, self._positions.of(container.id) or "0", is_whole=True)

    def _say(self, container: Container, data: str) -> None:
        self._outbox.log(self.command_id, f"service/{container.service}", data)
        self._positions.said(container.id)
        self._positions.save()


class _Positions:
    """The stamp of the last entry read, by container. On disk is that of the last one whose lines are in the spool.

    Between the two a kill loses nothing: the next process reads from the stamp on disk on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            loaded = json.loads(read_text(path) or "{}")
        except ValueError:
            loaded = {}  # Written half: the logs are read again from their beginning.
        self._said = {str(key): str(value) for key, value in loaded.items()}
        self._read = dict(self._said)
        self._whole = dict(self._said)

    def of(self, container: str) -> str:
        return self._read.get(container, "")

    def reached(self, container: str, position: str, is_whole: bool) -> None:
        """Everything up to this entry was read; `is_whole`: and waits in the batch, no line of it is incomplete."""
        self._read[container] = position
        if is_whole:
            self._whole[container] = position

    def skip_to(self, position: str) -> None:
        """Nothing before this stamp is read any more."""
        for positions in (self._said, self._read, self._whole):
            positions.update((container, position) for container, reached in positions.items() if reached < position)

    def said(self, container: str) -> None:
        """This container's batch is in the spool."""
        if container in self._whole:
            self._said[container] = self._whole[container]

    def keep_only(self, containers: set[str]) -> None:
        for positions in (self._said, self._read, self._whole):
            for gone in positions.keys() - containers:
                del positions[gone]

    def save(self) -> None:
        try:
            write_private(self._path, json.dumps(self._said))
        except OSError as error:  # A full disk: after a restart some lines may come twice, which is all it costs.
            log.warning("log positions are not kept: %s", error)


def _since(position: str) -> str:
    """A stamp as the Engine's `since`: Unix seconds with nine digits behind the point."""
    seconds, _, fraction = position.rstrip("Z").partition(".")
    if not fraction:
        return "0"
    whole = int(unix_time(seconds + "Z"))
    return f"{whole}.{fraction}"
