"""`python -m edge.compile`: makes edge/_plain.c part of this Python. Optional; the edge serves the same without it.

Needs a C compiler and Python's headers (apt-get install gcc python3-dev).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from edge.plain import RULES

_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-fPIC")
_LINK = ("-shared", "-fstack-protector-strong", "-Wl,-z,relro,-z,now")


_SOURCE = Path(__file__).with_name("_plain.c")


def main() -> int:
    """0 when it is made, else 1 with the compiler's words."""
    return compile_into(_SOURCE.parent)


def compile_into(folder: Path) -> int:
    """As `main`, with what is made in that folder."""
    made = folder / f"_plain{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    given = (f"-I{sysconfig.get_path('include')}", f'-DRULES="{RULES}"')
    try:
        done = subprocess.run([*compiler, *_FLAGS, *given, *_LINK, str(_SOURCE), "-o", str(made)], check=False)
    except OSError as error:
        print(
            f"edge.compile: {compiler[0]}: {error.strerror}. Install a C compiler (apt-get install gcc)",
            file=sys.stderr,
        )
        return 1
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
