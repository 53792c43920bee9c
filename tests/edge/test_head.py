"""The head check as a pure function, beside a second parser and against mutated heads."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.head import (
    CHUNKED,
    BadResponse,
    HeadRefused,
    Request,
    Response,
    check_start,
    read_request,
    read_response,
    wants_json,
)
from edge.headers import request_bytes

pytestmark = pytest.mark.usefixtures("reads_heads")
GOOD = b"POST /a?b HTTP/1.1\r\nHost: x.localhost\r\nAccept: */*\r\nCookie: a=b; c=d\r\nContent-Length: 3\r\n"
PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b",", b";", b"0", b"\xff", b"\x0b", b"\x85", b"_", b"-"),
    *(b"Host: y.localhost\r\n", b"Content-Length: 3\r\n", b"content-length:4\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Transfer-Encoding: identity\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: websocket\r\n",
    ),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"GET", b"\r\n ", b"X-Stagely-PR: 9\r\n", b"Expect: 100-continue\r\n"),
]


@st.composite
def mutated_heads(draw: st.DrawFn) -> bytes:
    """A good head with some pieces put in or over, as an attacker would."""
    head = GOOD
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(head)))
        over = draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        head = head[:at] + draw(st.sampled_from(PIECES)) + head[at + over :]
    return head


def request_or_none(wire: bytes) -> Request | None:
    """What the edge makes of these bytes once they have come."""
    end = wire.find(b"\r\n\r\n")
    try:
        return read_request(wire[: end + 2]) if end >= 0 else None
    except HeadRefused:
        return None


@given(mutated_heads())
def test_what_is_sent_on_is_read_the_same_by_us_and_by_h11(head: bytes) -> None:
    request = request_or_none(head + b"\r\n")
    if request is None:
        return

    forwarded = request_bytes(request, b"", b'Forwarded: for=1.1.1.1;proto=http;host="')

    # Idempotent: a second edge would forward the very same request.
    again = read_request(forwarded[:-2])
    assert (again.method, again.target, again.host, again.length, again.minor) == (
        request.method, request.target, request.host, request.length, request.minor
    )  # fmt: skip
    # A parser with other authors finds the same request, with one length at most.
    origin = h11.Connection(h11.SERVER)
    origin.receive_data(forwarded)
    event = origin.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (request.method, request.target)
    fields = dict(event.headers)
    assert (b"content-length" in fields) + (b"transfer-encoding" in fields) <= 1
    assert fields.get(b"transfer-encoding", b"chunked") == b"chunked"
    assert int(fields.get(b"content-length", b"0")) == max(0, request.length)


@given(mutated_heads())
def test_what_h11_refuses_is_refused(head: bytes) -> None:
    second = h11.Connection(h11.SERVER)
    try:
        second.receive_data(head + b"\r\n")
        event = second.next_event()
    except h11.RemoteProtocolError:
        event = None

    if not isinstance(event, h11.Request):
        assert request_or_none(head + b"\r\n") is None


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_no_bytes_at_all_make_the_check_fail_otherwise(noise: bytes, more: bytes) -> None:
    head = noise + b"\r\n" + more + b"\r\n"

    request_or_none(head + b"\r\n")
    try:
        read_response(head)
        check_start(noise)
    except (BadResponse, HeadRefused):
        pass


def test_head_that_almost_matches_is_refused_in_linear_time() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x.localhost\r\n" + b"X: " + b"a" * 30000 + b"\x00\r\n\r\n"
    begun = time.perf_counter()

    result = [request_or_none(head) for _ in range(20)]

    assert result == [None] * 20
    assert time.perf_counter() - begun < 2  # A backtracking expression takes minutes.


def test_whole_request_is_read() -> None:
    request = read_request(
        b"PUT /a HTTP/1.1\r\nhost: X.localhost:80\r\nConnection: close, x-a\r\nX-A: 1\r\nTE: gzip\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\nB: 2\r\n"
    )

    assert request == Request(b"PUT", b"/a", b"x.localhost:80", 1, b"B: 2\r\n", CHUNKED, True, False, True)


def test_whole_response_is_read() -> None:
    response = read_response(b"HTTP/1.1 404\r\nServer: a\r\nConnection: close\r\nContent-Length: 5\r\n")

    assert response == Response(404, b"", 1, b"Server: a\r\n", 5, True, False)


def test_cookie_keeps_everything_but_its_domain() -> None:
    response = read_response(
        b"HTTP/1.1 200 OK\r\nset-cookie: a=b;Domain=x;Path=/;HttpOnly\r\nSet-Cookie: c=domain; Max-Age=1 ;  DOMAIN\r\n"
    )

    assert response.fields == b"set-cookie: a=b;Path=/;HttpOnly\r\nSet-Cookie: c=domain; Max-Age=1 \r\n"


def test_json_is_for_who_asks_for_it_and_not_for_a_page() -> None:
    assert wants_json(b"Host: x\r\nAccept: application/json\r\n")
    assert wants_json(b"ACCEPT: text/plain, application/problem+json\r\n")
    assert not wants_json(b"Accept: text/html, application/json;q=0.9\r\n")
    assert not wants_json(b"Accept: */*\r\nX-Accept: application/json\r\n")
