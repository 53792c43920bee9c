"""The short way of plain heads means what the long way means, by expressions and compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge import plain
from edge.head import Request
from edge.headers import ALWAYS
from tests.edge.conftest import ROOT
from tests.edge.plain_heads import BODY, REQUEST, RESPONSE, long_way, long_way_back, mutated_answer, mutated_request
from tests.edge.reader import load

pytestmark = pytest.mark.usefixtures("reads_heads")
COUNT = 20_000


def test_compiled_reader_says_for_which_rules_it_was_made(compiled_reader: Path) -> None:
    assert load(compiled_reader).RULES == plain.RULES


@pytest.mark.parametrize("left_over", ["", "_plain.RULES = 'of last year'"])
def test_reader_that_was_compiled_for_other_rules_is_not_used(left_over: str) -> None:
    code = (
        "import sys, types; _plain = sys.modules['edge._plain'] = types.ModuleType('edge._plain')\n"
        f"{left_over}\nfrom edge import plain; print(plain.IS_COMPILED)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_reader_that_was_compiled_of_another_source_is_not_used(compiled_reader: Path, tmp_path: Path) -> None:
    package = tmp_path / "edge"
    package.mkdir()
    for file in (
        *(ROOT / "edge" / name for name in ("__init__.py", "memo.py", "plain.py", "_plain.c")),
        compiled_reader,
    ):
        shutil.copy(file, package)
    before = _is_compiled(tmp_path)

    with (package / "_plain.c").open("a") as source:
        source.write("/* A mistake is mended. */\n")
    after = _is_compiled(tmp_path)
    (package / "_plain.c").unlink()

    assert (before, after, _is_compiled(tmp_path)) == ("True\n", "False\n", "False\n")


def _is_compiled(folder: Path) -> str:
    code = "from edge import plain; print(plain.IS_COMPILED)"
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_plain_requests_mean_what_the_long_way_reads() -> None:
    heads = [mutated_request(seed) for seed in range(COUNT)]
    pairs = [(found, long_way(head)) for head in heads if (found := plain.request(head, Request)) is not None]

    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    assert len(pairs) > COUNT // 10


def test_plain_answers_become_what_the_long_way_composes() -> None:
    answers = [mutated_answer(seed) for seed in range(COUNT)]
    pairs = [(found, long_way_back(data)) for data in answers if (found := plain.answer(data, ALWAYS)) is not None]

    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    assert len(pairs) > COUNT // 20


def test_compiled_reader_means_what_the_expressions_mean(compiled_reader: Path) -> None:
    compiled = load(compiled_reader)
    heads = [mutated_request(seed) for seed in range(COUNT)]
    answers = [mutated_answer(seed) for seed in range(COUNT)]
    pairs = [(compiled.request(h, Request), plain.request_by_expression(h, Request)) for h in heads]
    pairs_back = [(compiled.answer(a, ALWAYS), plain.answer_by_expression(a, ALWAYS)) for a in answers]

    # What only one of them takes is no difference: the other leaves it to the long way.
    assert [pair for pair in pairs + pairs_back if None not in pair and pair[0] != pair[1]] == []
    assert sum(None not in pair for pair in pairs) > COUNT // 10
    assert sum(None not in pair for pair in pairs_back) > COUNT // 20


def test_every_cut_of_a_head_is_read_without_reading_beyond_it() -> None:
    head, answer = REQUEST + b"\r\n", RESPONSE + b"\r\n" + BODY

    assert [size for size in range(len(head) + 1) if plain.request(head[:size], Request)] == [len(head)]
    assert [size for size in range(len(answer) + 1) if plain.answer(answer[:size], ALWAYS)] == [len(answer)]


@pytest.mark.parametrize(
    ("head", "is_plain"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * (8192 - 14)), True),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * (8192 - 13)), False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * (32768 - 32)), True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * (32768 - 31)), False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"A: a\r\n" * 99), True),
        (b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"A: a\r\n" * 100), False),
        (b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % (b"A" * 32), True),
        (b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % (b"A" * 33), False),
        (b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 253), True),
        (b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 254), False),
        (b"GET / HTTP/1.1\r\nHost: x..y\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nG", False),
        (b"GET", False),
        (b"", False),
    ],
)  # fmt: skip
def test_plain_requests_end_at_the_limits(head: bytes, is_plain: bool) -> None:
    assert (plain.request(head, Request) is not None) == is_plain


@pytest.mark.parametrize(
    ("answer", "is_plain"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200\r\nContent-Length: 000000000000000002\r\n\r\nhi", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0000000000000000002\r\n\r\nhi", False),
        (b"HTTP/1.1 200 \r\nA: %b\r\nContent-Length: 0\r\n\r\n" % (b"a" * (32768 - 41)), True),
        (b"HTTP/1.1 200 \r\nA: %b\r\nContent-Length: 0\r\n\r\n" % (b"a" * (32768 - 40)), False),
        (b"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 304 \r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 199 \r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 600 \r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 \r\n\r\n", False),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200", False),
        (b"", False),
    ],
)  # fmt: skip
def test_plain_answers_end_at_the_limits(answer: bytes, is_plain: bool) -> None:
    assert (plain.answer(answer, ALWAYS) is not None) == is_plain


def test_what_the_compiled_reader_gives_is_found_in_sets_and_dicts(compiled_reader: Path) -> None:
    compiled = load(compiled_reader)
    request, answer = compiled.request(REQUEST + b"\r\n", Request), compiled.answer(RESPONSE + b"\r\n" + BODY, ALWAYS)

    assert hash(request) == hash(tuple(request))
    assert hash(answer) == hash((answer[0], answer[1]))


@pytest.mark.parametrize("wrong", [(b"",), (b"", bytes), ("", Request), (b"", Request, 1), (b"", object), (b"", 1)])
def test_compiled_reader_refuses_what_is_no_head_or_no_class_of_tuples(
    compiled_reader: Path, wrong: tuple[object, ...]
) -> None:
    with pytest.raises(TypeError, match="was called otherwise"):
        load(compiled_reader).request(*wrong)


@pytest.mark.parametrize("wrong", [(b"",), ("", b""), (b"", ""), (b"", b"", b"")])
def test_compiled_reader_refuses_what_is_no_answer(compiled_reader: Path, wrong: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="was called otherwise"):
        load(compiled_reader).answer(*wrong)
