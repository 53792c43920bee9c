"""What `make setup` found or built on this machine, read from `setup.json` in the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stagely.dev.refusal import Refused


@dataclass(frozen=True, slots=True)
class SetupRecord:
    """Paths of programs, the tag of the local VM's image, and how the mirror is filled (pull-through or stand-ins)."""

    temporal: Path
    registry: Path
    vm_image: str
    mirror: str
    mirror_storage: Path


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`$STAGELY_CACHE`, or `stagely` in the user's cache folder."""
    if named := environ.get("STAGELY_CACHE"):
        return Path(named)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stagely"


def load(environ: Mapping[str, str] = os.environ) -> SetupRecord:
    """The record of this machine. Raises Refused, whose remedy is always `make setup`."""
    path = Path(environ.get("STAGELY_SETUP") or cache_folder(environ) / "setup.json")
    try:
        found = json.loads(path.read_text())
        record = SetupRecord(
            temporal=Path(found["temporal"]),
            registry=Path(found["registry"]),
            vm_image=str(found["vm_image"]),
            mirror=str(found["mirror"]),
            mirror_storage=cache_folder(environ) / "mirror",
        )
    except FileNotFoundError:
        raise Refused(f"This machine is not set up yet: {path} is missing. Run: make setup") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} cannot be read ({error}). Run: make setup") from error
    _refuse_missing(record)
    return record


def _refuse_missing(record: SetupRecord) -> None:
    for what, program in (("the Temporal server", record.temporal), ("the image registry", record.registry)):
        if not os.access(program, os.X_OK):
            raise Refused(f"{what} should be at {program} and is not. Run: make setup")
