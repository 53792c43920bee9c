"""The reader of plain heads in both its forms, whichever was made for this Python.

As a program it is `python -m edge` with the form that its argument names: "" for the expressions, or the compiled file.
"""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

MODULE = "edge._plain"


def compiled_in(folder: Path) -> Path:
    """The file, made for this test run. Skips where no C compiler or no header of Python is."""
    if shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or no Python.h")
    from edge.compile import compile_into

    assert compile_into(folder, "-Werror") == 0
    return next(folder.glob("_plain*"))


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
