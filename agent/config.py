"""The agent's settings: one JSON file that cloud-init wrote, and the places the agent keeps its things."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import protocol

DEFAULT_PATH = Path("/etc/stagely/config.json")
SILENCE_LIMIT_S = 15 * 60.0  # Architecture section 3: longer than any reboot, shorter than a wasted hour.
RECONNECT_FIRST_WAIT_S = 10.0  # reference/gateway.md section 5: spreads 10,000 agents over a third of the capacity.


class ConfigError(ValueError):
    """The file is missing or wrong. The text names the file, the key and what to do."""


@dataclass(frozen=True, slots=True)
class Config:
    """`state_dir` survives a reboot, `run_dir` does not; `work_dir` holds what was cloned."""

    agent_id: str
    core_url: str
    token: str = field(default="", repr=False)
    job_id: str = ""
    state_dir: Path = Path("/var/lib/stagely")
    work_dir: Path = Path("/var/lib/stagely/work")
    run_dir: Path = Path("/run/stagely")
    docker_socket: Path = Path("/var/run/docker.sock")
    silence_limit_s: float = SILENCE_LIMIT_S
    reconnect_first_wait_s: float = RECONNECT_FIRST_WAIT_S


_TEXTS = ("agent_id", "core_url", "token", "job_id")
_PATHS = ("state_dir", "work_dir", "run_dir", "docker_socket")
_SECONDS = ("silence_limit_s", "reconnect_first_wait_s")


def load(path: Path) -> Config:
    """The settings in this file. Raises ConfigError."""
    try:
        loaded = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). cloud-init writes it at first boot.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}). cloud-init writes it; destroy this VM.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold one JSON object, got {type(loaded).__name__}")
    return parse(loaded, str(path))


def parse(loaded: dict[str, object], where: str) -> Config:
    """`loaded` as Config; keys it does not know are left alone, so that an older agent takes a newer file."""
    texts: dict[str, Any] = {key: _text(loaded, key, where) for key in _TEXTS if key in loaded}
    for key in ("agent_id", "core_url"):
        if not texts.get(key):
            raise ConfigError(f'{where}: "{key}" is missing')
    texts["core_url"] = connect_url(texts["core_url"], where)
    # Any: three dicts that hold one type each, chosen by the key lists above.
    paths: dict[str, Any] = {key: Path(_text(loaded, key, where)) for key in _PATHS if key in loaded}
    seconds: dict[str, Any] = {key: _seconds(loaded, key, where) for key in _SECONDS if key in loaded}
    return Config(texts.pop("agent_id"), texts.pop("core_url"), **texts, **paths, **seconds)


def connect_url(core_url: str, where: str) -> str:
    """The WebSocket address: `core_url` itself when it names a path, else with protocol.CONNECT_PATH."""
    parts = urlsplit(core_url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(f'{where}: "core_url" must be ws://HOST[:PORT] or wss://HOST[:PORT], got {core_url[:200]!r}')
    if parts.path in ("", "/"):
        parts = parts._replace(path=protocol.CONNECT_PATH)
    return parts.geturl()


def _text(loaded: dict[str, object], key: str, where: str) -> str:
    value = loaded[key]
    if not isinstance(value, str):
        raise ConfigError(f'{where}: "{key}" must be a string, got {type(value).__name__}')
    return value


def _seconds(loaded: dict[str, object], key: str, where: str) -> float:
    value = loaded[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f'{where}: "{key}" must be a number of seconds, got {str(value)[:40]!r}')
    return float(value)
