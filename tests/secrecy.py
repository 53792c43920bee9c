"""Looks for a known secret where it must not be."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path


def forms(secret: str) -> tuple[bytes, ...]:
    """The secret as it would stand in a file: plain, and in Base64 at each of the three places in a longer text."""
    plain = secret.encode()
    # The characters at the ends depend on the neighbours, so only the middle is looked for.
    shifted = (base64.b64encode(b"\0" * shift + plain)[4 : -4 or None] for shift in range(3))
    return (plain, *shifted)


def is_in(secret: str, content: bytes) -> bool:
    return any(form in content for form in forms(secret))


def files_with(secret: str, folder: Path) -> list[str]:
    """Names of the files below `folder` that hold the secret in any form."""
    return [path.name for path in _files(folder) if is_in(secret, path.read_bytes())]


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
