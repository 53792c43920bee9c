"""The tests' one key: what a client of one test wrote, any process of it can read."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from stagely.keyring import KeyRing
from stagely.temporal import data_converter

KEY_LINE = "tests:" + "c4" * 32


def key_file(folder: Path, *lines: str) -> Path:
    """A key file with these lines, of the mode that it must have."""
    path = folder / "encryption-key"
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


_FOLDER = tempfile.TemporaryDirectory(prefix="stagely-tests-")
atexit.register(_FOLDER.cleanup)
KEY_FILE = key_file(Path(_FOLDER.name), KEY_LINE)
CONVERTER = data_converter(KeyRing(KEY_FILE))
