"""Which running `stagely dev` a command talks to: its URLs and tokens, from its state folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stagely.cli.refusal import NotAcceptable
from stagely.processes import is_alive

DEFAULT_STATE = Path(".stagely")


@dataclass(frozen=True, slots=True)
class Installation:
    """One running installation. `forge_for_vms` is the forge's URL as VMs reach it."""

    state: Path
    id: str
    api: str
    forge: str
    forge_for_vms: str
    edge_port: int
    registry: str
    urls: dict[str, str]

    @property
    def token(self) -> str:
        """The api's token."""
        return _read(self.state / "token")

    @property
    def github_token(self) -> str:
        """The forge's admin token."""
        return _read(self.state / "github-token")

    @property
    def option(self) -> str:
        """` --state DIR` for a command line that a person may copy; "" for the default."""
        return "" if self.state == DEFAULT_STATE else f" --state {self.state}"


def find(state: Path) -> Installation:
    """The installation that runs on `state`. Raises NotAcceptable when none does."""
    start = "stagely dev" if state == DEFAULT_STATE else f"stagely dev --state {state}"
    try:
        record = json.loads((state / "dev.json").read_text())
        pid, urls = int(record["pid"]), {str(k): str(v) for k, v in record["urls"].items()}
        found = Installation(
            state=state,
            id=str(record["installation"]),
            api=urls["api"],
            forge=urls["forge"],
            forge_for_vms=urls["forge_for_vms"],
            edge_port=int(record["ports"]["edge"]),
            registry=urls["registry"],
            urls=urls,
        )
    except FileNotFoundError:
        raise NotAcceptable(
            f"No Stagely runs on {state}. Start one with {start}, or name its state folder: --state DIR"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAcceptable(f"{state}/dev.json cannot be read ({error!r}). Start Stagely again: {start}") from error
    if not is_alive(pid):
        raise NotAcceptable(f"Stagely on {state} has ended (process {pid} is gone). Start it again: {start}")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NotAcceptable(
            f"{path} cannot be read ({error.strerror}). It belongs to who started stagely dev."
        ) from error
