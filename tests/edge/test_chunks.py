"""The chunked coding as a pure function: any cut of the bytes gives the same body."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.chunks import LAST_CHUNK, BadChunk, ChunkReader, as_chunk


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.binary(max_size=20), st.lists(st.integers(0, 300)))
def test_body_is_the_same_wherever_the_bytes_were_cut(payloads: list[bytes], behind: bytes, cuts: list[int]) -> None:
    wire = b"".join(map(as_chunk, payloads)) + LAST_CHUNK + behind
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    reader = ChunkReader(trailers_allowed=False)
    body, rest = b"", b""

    for start, end in itertools.pairwise(edges):
        if reader.done:
            rest += wire[start:end]
        else:
            body += reader.feed(wire[start:end])
            rest = reader.rest

    assert (body, rest, reader.done) == (b"".join(payloads), behind, True)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    reader = ChunkReader(trailers_allowed=True)

    with contextlib.suppress(BadChunk):
        reader.feed(noise)


def test_trailers_of_an_answer_are_read_and_dropped() -> None:
    reader = ChunkReader(trailers_allowed=True)

    body = reader.feed(b"1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nnext")

    assert (body, reader.done, reader.rest) == (b"a", True, b"next")


def test_endless_trailers_are_refused() -> None:
    reader = ChunkReader(trailers_allowed=True)
    reader.feed(b"0\r\n")

    with pytest.raises(BadChunk, match="longer than"):
        reader.feed(b"X-Sum: 1\r\n" * 1000)


def test_size_line_that_never_ends_is_refused() -> None:
    reader = ChunkReader(trailers_allowed=False)

    with pytest.raises(BadChunk, match="size line"):
        reader.feed(b"5;" + b"a" * 300)
