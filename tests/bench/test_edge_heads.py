"""The heads of the edge's load are what they are called."""

from __future__ import annotations

from bench.edge.heads import COUNTER, COUNTER_DIGITS, HEAD_BYTES, HEADS, HOSTS, SEPARATOR, address, browser_heads
from edge.head import read_request


def test_browser_heads_are_distinct_and_of_the_promised_length() -> None:
    heads = browser_heads(unique=False).split(SEPARATOR)

    assert (len(heads), len(set(heads)), {len(head) for head in heads}) == (HEADS, HEADS, {HEAD_BYTES})


def test_unique_heads_have_that_length_once_they_are_numbered() -> None:
    heads = browser_heads(unique=True).split(SEPARATOR)

    assert {len(head) - len(COUNTER) + COUNTER_DIGITS for head in heads} == {HEAD_BYTES}
    assert {head.count(COUNTER) for head in heads} == {1}


def test_heads_ask_every_host_in_turn_and_pass_the_edge() -> None:
    requests = [read_request(head[:-2]) for head in browser_heads(unique=False).split(SEPARATOR)]

    assert [request.host for request in requests[:2]] == [b"p0.localhost", b"p1.localhost"]
    assert len({request.host for request in requests}) == HOSTS


def test_every_host_has_an_address_of_its_own() -> None:
    assert len({address(number) for number in range(HOSTS)}) == HOSTS
    assert address(999) == "127.1.3.231"
