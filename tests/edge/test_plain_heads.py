"""The short way of plain heads means what the long way means. A TE field sends a head the long way, with no effect."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge import plain
from edge.head import BadResponse, HeadRefused, Request, Response, read_request, read_response
from tests.edge.conftest import ROOT
from tests.edge.reader import load

pytestmark = pytest.mark.usefixtures("reads_heads")
COUNT = 20_000
REQUEST = (
    b"GET /a?b HTTP/1.1\r\nHost: x.localhost\r\nConnection: keep-alive\r\nUser-Agent: x\r\nCookie: a=b; c=d\r\n"
    b"Cache-Control: no-cache\r\nTe-st: 1\r\nX-Requested-With: y\r\nKeep: z\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: keep-alive\r\n"
    b"Keep-Alive: timeout=5\r\nCache-Control: no-store\r\nX-Powered-By: y\r\nAlt: z\r\n"
)
PIECES = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b",", b"0", b"\xff", b"\x7f", b"_", b"-", b"a", b"\r\n "),
    *(b"Host: y.localhost\r\n", b"hOST:\t[::1]:8\r\n", b"Connection: close\r\n", b"connection:keep-alive\r\n"),
    *(b"Connection: x-requested-with\r\n", b"Keep-Alive: 5\r\n", b"Upgrade: websocket\r\n", b"Proxy-Foo: 1\r\n"),
    *(b"Content-Length: 3\r\n", b"Content_Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X_Stagely-PR: 9\r\n"),
    *(b"X-Forwarded-For: 1\r\n", b"Forwarded: 1\r\n", b"Set-Cookie: a=b; Domain=x\r\n", b"X-Robots-Tag: all\r\n"),
    *(b"Host: y:65535\r\n", b"Host: y:65536\r\n", b"Host: y:00080\r\n", b"X.Stagely~PR: 9\r\n", b"x|REAL!Ip: 1\r\n"),
    *(b"Connection: keep_alive\r\n", b"Connection: keep.alive\r\n", b"Content.Length: 3\r\n", b"Keep_Alive: 5\r\n"),
    *(b"Expect: 100-continue\r\n", b"Trailer: x\r\n", b"HTTP/1.0", b"HTTP/1.1", b"204", b"no reason", b"TE: x\r\n"),
)  # fmt: skip


def mutated(head: bytes, seed: int) -> bytes:
    """The head with a few pieces put in, over, or cut out; its last line ends."""
    chance = random.Random(seed)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(head))
        head = head[:at] + chance.choice((b"", *PIECES)) + head[at + chance.choice((0, 0, 1, 2, 6)) :]
    return head if head.endswith(b"\r\n") else head + b"\r\n"


def request_or_status(head: bytes) -> Request | int:
    try:
        return read_request(head)
    except HeadRefused as refused:
        return refused.status


def response_or_none(head: bytes) -> Response | None:
    try:
        return read_response(head)
    except BadResponse:
        return None


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


def test_mutated_requests_mean_the_same_both_ways() -> None:
    heads = [mutated(REQUEST, seed) for seed in range(COUNT)]

    differing = [h for h in heads if request_or_status(h) != request_or_status(h + b"TE: x\r\n")]

    assert differing == []


def test_mutated_responses_mean_the_same_both_ways() -> None:
    heads = [mutated(RESPONSE, seed) for seed in range(COUNT)]

    differing = [h for h in heads if response_or_none(h) != response_or_none(h + b"TE: x\r\n")]

    assert differing == []


def test_some_of_the_mutated_heads_are_accepted_and_some_refused() -> None:
    requests = [request_or_status(mutated(REQUEST, seed)) for seed in range(2000)]
    responses = [response_or_none(mutated(RESPONSE, seed)) for seed in range(2000)]

    assert 500 < sum(isinstance(found, Request) for found in requests) < 1500
    assert 500 < sum(found is not None for found in responses) < 1900


def test_compiled_reader_means_what_the_expressions_mean() -> None:
    blocks = [head.partition(b"\r")[2] for head in (mutated(REQUEST, seed) for seed in range(COUNT))]
    heads = [mutated(RESPONSE, seed) for seed in range(COUNT)]
    pairs = [(plain.request_block(block), plain.request_block_by_expression(block)) for block in blocks]
    answers = [(plain.response_head(head), plain.response_head_by_expression(head)) for head in heads]

    assert [pair for pair in pairs if None not in pair and pair[0] != pair[1]] == []
    assert [pair for pair in answers if None not in pair and pair[0] != pair[1]] == []
    assert sum(None not in pair for pair in pairs) > COUNT // 10
    assert sum(None not in pair for pair in answers) > COUNT // 10


def test_every_cut_of_a_head_is_read_without_reading_beyond_it() -> None:
    block = REQUEST.partition(b"\r")[2]
    cuts = [plain.request_block(block[:size]) for size in range(len(block) + 1)]
    answers = [plain.response_head(RESPONSE[:size]) for size in range(len(RESPONSE) + 1)]

    assert sum(cut is not None for cut in cuts) == 8  # After each whole line from the host on.
    assert sum(answer is not None for answer in answers) == 6  # From the length on.
