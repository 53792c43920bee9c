"""How much log a command may say: a service that prints without end must not fill the core's database."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from agent.files import read_text, write_private

LIMIT_BYTES = 64 * 1024 * 1024  # reference/security.md G5: a million ordinary lines for each build and each deployment.
KEPT = 200  # Commands; none older than that says anything any more.
_SAVED_EVERY_BYTES = 1024 * 1024  # What a killed agent may have said without its being counted.

log = logging.getLogger("stagely.agent.budget")


class LogBudget:
    """Bytes of log by command, all of its streams together; on disk, so that a restart grants no new limit."""

    def __init__(self, path: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._path = path
        self._said = _load(path) if path else {}

    def is_used_up(self, command_id: str) -> bool:
        return self._said.get(command_id, 0) >= self.limit_bytes

    def spend(self, command_id: str, size_bytes: int) -> None:
        before = self._said.pop(command_id, 0)
        self._said[command_id] = before + size_bytes
        while len(self._said) > KEPT:
            del self._said[next(iter(self._said))]
        if before // _SAVED_EVERY_BYTES != (before + size_bytes) // _SAVED_EVERY_BYTES:
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        try:
            write_private(self._path, json.dumps(self._said))
        except OSError as error:  # A full disk: after a restart a little more may be said.
            log.warning("the size of the logs is not kept: %s", error)


def _load(path: Path) -> dict[str, int]:
    try:
        return {str(key): int(value) for key, value in json.loads(read_text(path) or "{}").items()}
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("the size of the logs is unreadable, counting anew: %s", error)
        return {}
