"""The simulated agents' bytes, against the library that they leave out."""

from __future__ import annotations

import pytest
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from bench.gateway.frames import (
    HEAD_END,
    PONG,
    TEXT,
    BadServer,
    Frame,
    check_upgraded,
    cut,
    masked,
    nonce_of,
    upgrade_request,
)


def greeted() -> ServerProtocol:
    """A server that has taken our request."""
    server = ServerProtocol()
    server.receive_data(upgrade_request("127.0.0.1:1"))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]  # The first event is the request.
    return server


def from_server(frame: LibraryFrame) -> bytes:
    return frame.serialize(mask=False)


def test_the_nonce_is_found_among_the_answers_headers() -> None:
    assert nonce_of(b"HTTP/1.1 101 Switching Protocols\r\nStagely-Nonce: 0a1b\r\nUpgrade: websocket") == "0a1b"
    assert nonce_of(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket") == ""


def test_the_library_accepts_the_request_and_its_answer_is_an_upgrade() -> None:
    answer = b"".join(greeted().data_to_send())

    check_upgraded(answer.partition(HEAD_END)[0])


def test_an_answer_to_another_key_is_refused() -> None:
    with pytest.raises(BadServer, match="101 Switching"):
        check_upgraded(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: c3RyYW5nZXI=")


def test_an_error_is_refused() -> None:
    with pytest.raises(BadServer, match="503"):
        check_upgraded(b"HTTP/1.1 503 Service Unavailable")


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_the_library_reads_masked_frames_of_every_form_of_length(length: int) -> None:
    server = greeted()

    server.receive_data(masked(TEXT, b"x" * length))

    (frame,) = server.events_received()
    assert isinstance(frame, LibraryFrame)
    assert bytes(frame.data) == b"x" * length


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_frames_of_the_library_are_cut_and_what_follows_waits(length: int) -> None:
    data = from_server(LibraryFrame(Opcode.TEXT, b"y" * length))

    assert cut(data + b"\x81") == ([Frame(TEXT, b"y" * length)], b"\x81")


def test_two_frames_at_once_are_two() -> None:
    data = from_server(LibraryFrame(Opcode.TEXT, b"a")) + from_server(LibraryFrame(Opcode.PONG, b"b"))

    assert cut(data) == ([Frame(TEXT, b"a"), Frame(PONG, b"b")], b"")


@pytest.mark.parametrize("end", [0, 1, 2, 3, 4, 5, 203])
def test_a_frame_that_is_not_whole_waits(end: int) -> None:
    data = from_server(LibraryFrame(Opcode.TEXT, b"y" * 200))[:end]

    assert cut(data) == ([], data)


def test_a_masked_frame_from_the_server_is_refused() -> None:
    with pytest.raises(BadServer, match="8181"):
        cut(masked(TEXT, b"x"))


def test_a_fragment_from_the_server_is_refused() -> None:
    with pytest.raises(BadServer, match="0101"):
        cut(b"\x01\x01x")
