"""The name of a folder's repository in the local forge: the folder's own, made distinct when another one has it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from pathlib import Path

MAX_NAME = 40  # A project's slug has at most 63 characters; room for the suffix.
SUFFIX_LENGTH = 6


def name_of(root: Path, state: Path) -> str:
    """The same folder always gets the same name, from one file in the state folder."""
    known_file = state / "repositories.json"
    with (state / "repositories.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two `stagely up` at once; it is held for a millisecond.
        known: dict[str, str] = json.loads(known_file.read_text()) if known_file.exists() else {}
        path = str(root.resolve())
        if path not in known:
            known[path] = choose(path, set(known.values()))
            draft = known_file.with_suffix(".new")
            draft.write_text(json.dumps(known, indent=2))
            draft.replace(known_file)
        return known[path]


def known_name(root: Path, state: Path) -> str | None:
    """The name `root` has already, or None."""
    try:
        found = json.loads((state / "repositories.json").read_text()).get(str(root.resolve()))
    except (OSError, ValueError):
        return None
    return None if found is None else str(found)


def choose(path: str, taken: set[str]) -> str:
    """A name for `path` that nobody has: lower case, digits and hyphens, as a DNS label and a slug need."""
    plain = re.sub(r"[^a-z0-9]+", "-", Path(path).name.lower()).strip("-")[:MAX_NAME].strip("-") or "repository"
    if plain not in taken:
        return plain
    return f"{plain}-{hashlib.sha256(path.encode()).hexdigest()[:SUFFIX_LENGTH]}"
