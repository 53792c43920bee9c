"""The compiled reader as C: what sanitizers, the allocator and a million mutated heads say of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge import compile as reader
from edge.head import Request
from edge.headers import ALWAYS
from tests.edge.conftest import ROOT
from tests.edge.plain_heads import mutated_answer, mutated_request
from tests.edge.reader import load, sanitized_in


def fuzzed(count: int, file: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.edge.fuzz_reader", str(file), str(count)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_mutated_heads_mean_the_same_in_c_by_expressions_and_the_long_way(compiled_reader: Path) -> None:
    done = fuzzed(1_000_000, compiled_reader, {})

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2000000 mutated heads")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    done = fuzzed(100_000, *sanitized_in(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("200000 mutated heads")


def test_sanitizers_find_a_buffer_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_small = tmp_path / "_plain.c"
    too_small.write_text(reader._SOURCE.read_text().replace("char fields[HEAD_MAX]", "char fields[128]"))
    monkeypatch.setattr(reader, "_SOURCE", too_small)

    done = fuzzed(1_000, *sanitized_in(tmp_path))

    assert done.returncode != 0
    assert "AddressSanitizer: stack-buffer-overflow" in done.stderr or "out of bounds" in done.stderr


def test_nothing_is_kept_of_heads_that_were_read(compiled_reader: Path) -> None:
    compiled = load(compiled_reader)
    heads = [(mutated_request(seed), mutated_answer(seed)) for seed in range(2000)]

    def blocks_after_reading() -> int:
        for head, answer in heads:
            compiled.request(head, Request)
            compiled.answer(answer, ALWAYS)
        gc.collect()  # It empties the lists of free tuples too.
        return sys.getallocatedblocks()

    first, *others = [blocks_after_reading() for _ in range(4)]

    assert max(others) - first < 100
