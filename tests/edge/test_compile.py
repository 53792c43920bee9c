"""`python -m edge.compile`: what it makes is used while it fits, and made anew when anything it came from changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge import compile as reader
from tests.edge.conftest import ROOT


def test_what_was_just_made_is_current(compiled_reader: Path) -> None:
    assert reader.is_current(compiled_reader.parent)


def test_nothing_is_current_where_nothing_was_made(tmp_path: Path) -> None:
    assert not reader.is_current(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RULES", "0" * 64), ("_FLAGS", ("-O3",)), ("_LIMITS", ("-DHEAD_MAX=1",))],
)
def test_reader_is_not_current_after_rules_limits_or_flags_changed(
    compiled_reader: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(reader, name, value)

    assert not reader.is_current(compiled_reader.parent)


def test_reader_is_not_current_after_its_source_or_python_changed(
    compiled_reader: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "_plain.c"
    changed.write_text(reader._SOURCE.read_text() + "\n")
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_SOURCE", changed)
        by_source = reader.is_current(compiled_reader.parent)
    monkeypatch.setattr(sys, "version", "3.11.99")

    assert (by_source, reader.is_current(compiled_reader.parent)) == (False, False)


def test_without_a_compiler_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")

    assert reader.compile_into(tmp_path) == 1
    assert capfd.readouterr().err == (
        "edge.compile: no-such-compiler: No such file or directory. Install a C compiler (apt-get install gcc)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["", " "])
def test_compiler_that_is_named_by_nothing_is_cc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    monkeypatch.setenv("CC", given)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert reader.compile_into(tmp_path) == 1
    assert capfd.readouterr().err.startswith("edge.compile: cc: No such file or directory.")


def test_failed_compilation_leaves_the_last_reader_as_it_was(
    tmp_path: Path, compiled_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / compiled_reader.name
    kept.write_bytes(compiled_reader.read_bytes())
    monkeypatch.setenv("CC", "false")

    assert reader.compile_into(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == compiled_reader.read_bytes()


def test_source_is_not_compiled_without_the_rules_it_is_for(tmp_path: Path) -> None:
    command = ["cc", "-E", str(reader._SOURCE), "-o", str(tmp_path / "out")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "Compile this by `python -m edge.compile`" in done.stderr
