"""Paths that a repository names, opened only beneath its own work tree."""

from __future__ import annotations

import errno
from pathlib import Path


class OutsideTree(ValueError):
    """The path leads out of the work tree, directly or through a link, or it leads nowhere at all."""


def beneath(tree: Path, *parts: str) -> Path:
    """The real path of `parts` inside `tree`. Raises OutsideTree."""
    root = tree.resolve()
    try:
        found = root.joinpath(*(part for part in parts if part)).resolve()
        _look_at(found)
    except (OSError, RuntimeError) as error:  # RuntimeError: how Python 3.11 says that links lead in a circle.
        named = "/".join(parts)[:200]
        raise OutsideTree(f"{named} leads nowhere: a name is too long, or links lead in a circle.") from error
    if found != root and root not in found.parents:
        raise OutsideTree(
            f"{'/'.join(parts)} leads out of the repository. Use a path inside it, without links out of it."
        )
    return found


def _look_at(path: Path) -> None:
    """Raises OSError for a path that no system call would take."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise
