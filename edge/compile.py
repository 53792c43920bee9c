"""`python -m edge.compile [--check]`: makes edge/_plain.c part of this Python (docs/adr/0009).

Needs a C compiler and Python's headers (apt-get install gcc python3-dev); the edge serves the same without it. With
`--check` nothing is made: code 0 says that what is there is of this source, these rules and this Python.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from edge.plain import FIELDS_MAX, HEAD_MAX, LINE_MAX, RULES

_FLAGS = ("-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-fPIC")
_LIMITS = (f"-DHEAD_MAX={HEAD_MAX}", f"-DLINE_MAX={LINE_MAX}", f"-DFIELDS_MAX={FIELDS_MAX}")
_LINK = ("-shared", "-fstack-protector-strong", "-Wl,-z,relro,-z,now")
_SOURCE = Path(__file__).with_name("_plain.c")


def main() -> int:
    """0 when it is made, else 1 with a line that says why not, or the compiler's words."""
    folder = _SOURCE.parent
    if "--check" in sys.argv[1:]:
        return 0 if is_current(folder) else 1
    return compile_into(folder)


def is_current(folder: Path) -> bool:
    """Whether the file there was made of what is here now."""
    made = _file_in(folder)
    return made.exists() and _made_of().encode() in made.read_bytes()


def compile_into(folder: Path, *flags: str) -> int:
    """As `main`, with what is made in that folder, and perhaps other flags of the compiler."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return _cannot(f"{header} is missing", "Python's headers (apt-get install python3-dev)")
    made = _file_in(folder)
    fresh = made.with_suffix(f".{os.getpid()}")
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    given = (f"-I{header.parent}", f'-DRULES="{RULES}"', f'-DMADE_OF="{_made_of()}"', *_LIMITS)
    command = [*compiler, *_FLAGS, *flags, *given, *_LINK, str(_SOURCE), "-o", str(fresh)]
    try:
        done = subprocess.run(command, check=False)
        if done.returncode == 0:
            fresh.replace(made)  # An edge that runs keeps the file it has mapped.
    except OSError as error:
        return _cannot(f"{compiler[0]}: {error.strerror}", "a C compiler (apt-get install gcc)")
    finally:
        fresh.unlink(missing_ok=True)
    return 1 if done.returncode else 0


def _cannot(problem: str, remedy: str) -> int:
    print(f"edge.compile: {problem}. Install {remedy}", file=sys.stderr)
    return 1


def _file_in(folder: Path) -> Path:
    return folder / f"_plain{sysconfig.get_config_var('EXT_SUFFIX')}"


def _made_of() -> str:
    """Changes with the source, the rules, the flags, and the Python that is to load it."""
    parts = (_SOURCE.read_text(), RULES, *_FLAGS, *_LIMITS, *_LINK, sys.version)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
