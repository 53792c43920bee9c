"""The agent as one file that any machine with Python 3.11 runs: `stagely-agent.pyz`.

A zipapp of `agent/` and the pure-Python part of `websockets`, the same bytes for the same sources: names are sorted,
dates and modes fixed. The api serves it, cloud-init checks its SHA-256. `python -m stagely.agent_archive FILE` writes
it (`make agent`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAME = "stagely-agent.pyz"
_DATE = (1980, 1, 1, 0, 0, 0)  # The earliest that a zip can say.
_MODE = 0o100644 << 16
_UNIX = 3
# Parts of websockets that the asyncio client does not import.
_LEFT_OUT = ("legacy/", "trio/", "sync/", "cli.py", "__main__.py")
_MAIN = "import sys\nfrom agent.__main__ import main\nsys.exit(main())\n"


@dataclass(frozen=True, slots=True)
class AgentArchive:
    """`sha256` is of `content`, in hexadecimal."""

    content: bytes = field(repr=False)
    sha256: str


@functools.cache
def archive() -> AgentArchive:
    """The archive of the sources that this process runs with; built once."""
    content = b"#!/usr/bin/env python3\n" + _zip(dict(_sources()))
    return AgentArchive(content, hashlib.sha256(content).hexdigest())


def write(path: Path) -> AgentArchive:
    """Write the archive to this file, executable."""
    built = archive()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(built.content)
    path.chmod(0o755)
    return built


def _sources() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN.encode()
    for package in ("agent", "websockets"):
        folder = _folder(package)
        for path in folder.rglob("*.py"):
            name = path.relative_to(folder).as_posix()
            if package == "agent" or not name.startswith(_LEFT_OUT):
                yield f"{package}/{name}", path.read_bytes()


def _folder(package: str) -> Path:
    # By its place, not by import: the control plane imports nothing of the agent but its protocol.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed. Run `make setup`.")
    return Path(spec.origin).parent


def _zip(sources: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in sorted(sources.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = _UNIX
            entry.external_attr = _MODE
            file.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


if __name__ == "__main__":
    _path = Path(sys.argv[1] if len(sys.argv) > 1 else f"dist/{NAME}")
    _built = write(_path)
    print(f"{_path}: {len(_built.content)} bytes, SHA-256 {_built.sha256}")
