"""The reader of plain heads in both its forms, whichever was made for this Python.

As a program it is `python -m edge` with the form that its argument names: "" for the expressions, or the compiled file.
"""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

MODULE = "edge._plain"


def compiled_in(folder: Path, *flags: str) -> Path:
    """The file, made for this test run. Skips where no C compiler or no header of Python is."""
    if shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or no Python.h")
    from edge.compile import compile_into

    assert compile_into(folder, "-Werror", *flags) == 0
    return next(folder.glob("_plain*.so"))


def sanitized_in(folder: Path) -> tuple[Path, dict[str, str]]:
    """The file, made with AddressSanitizer and UBSan, and the environment of a Python that loads it.

    Skips where the compiler has no such library.
    """
    names = ("libasan.so", "libubsan.so")
    libraries = [subprocess.check_output(["cc", f"-print-file-name={name}"], text=True).strip() for name in names]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("the C compiler has no sanitizers")
    file = compiled_in(folder, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    # Python's own allocator would put several heads into one block, and hide what looks from one into the next.
    return file, {
        "LD_PRELOAD": " ".join(libraries), "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0"
    }  # fmt: skip


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    file = sys.argv.pop(1)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    # None: an import of it fails, also where the package has one.
    sys.modules[MODULE] = load(Path(file)) if file else None  # type: ignore[assignment]
    runpy.run_module("edge", run_name="__main__", alter_sys=True)
