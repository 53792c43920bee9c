"""Paths that a repository names, opened only beneath its own work tree."""

from __future__ import annotations

from pathlib import Path


class OutsideTree(ValueError):
    """The path leads out of the work tree, directly or through a link."""


def beneath(tree: Path, *parts: str) -> Path:
    """The real path of `parts` inside `tree`. Raises OutsideTree."""
    root = tree.resolve()
    found = root.joinpath(*(part for part in parts if part)).resolve()
    if found != root and root not in found.parents:
        raise OutsideTree(
            f"{'/'.join(parts)} leads out of the repository. Use a path inside it, without links out of it."
        )
    return found
