"""What the edge writes into heads: its own fields on the way to the VM, and framing on the way back. Pure."""

from __future__ import annotations

import urllib.parse

from edge.head import CHUNKED, Request, Response, read_response
from edge.routes import Route

BODYLESS = (204, 304)  # RFC 9110 section 6.4.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Previews are drafts: no search engine may list one (architecture section 7).
_ROBOTS = b"X-Robots-Tag: noindex, nofollow\r\n"
_HEADER_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def route_fields(route: Route) -> bytes:
    """The X-Stagely fields of one route; characters outside ASCII are percent-encoded."""
    project, team = (urllib.parse.quote(value, safe=_HEADER_SAFE) for value in (route.project, route.team))
    return f"X-Stagely-PR: {route.pr}\r\nX-Stagely-Project: {project}\r\nX-Stagely-Team: {team}\r\n".encode()


def client_fields(address: str, scheme: str) -> bytes:
    """The forwarding fields of one client, up to where its Host value is to follow twice; see `request_bytes`."""
    node = f'"[{address}]"' if ":" in address else address
    return (
        f"X-Forwarded-For: {address}\r\nX-Real-IP: {address}\r\nX-Forwarded-Proto: {scheme}\r\n"
        f'Forwarded: for={node};proto={scheme};host="'
    ).encode()


def request_bytes(request: Request, of_route: bytes, of_client: bytes) -> bytes:
    """The head that goes to the VM. An HTTP/1.0 client's request stays one, so that the answer fits that client."""
    host = request.host
    return b'%b %b HTTP/1.%d\r\nHost: %b\r\n%b%b%b%b%b%b"\r\nX-Forwarded-Host: %b\r\n\r\n' % (
        request.method,
        request.target,
        request.minor,
        host,
        request.fields,
        b"" if request.length == 0 and request.method == b"GET" else _request_framing(request),
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if request.websocket else b"",
        of_route,
        of_client,
        host,
        host,
    )


def _request_framing(request: Request) -> bytes:
    expect = b"Expect: 100-continue\r\n" if request.expects else b""
    if request.length == CHUNKED:
        return b"Transfer-Encoding: chunked\r\n" + expect
    if request.length or request.method in (b"POST", b"PUT", b"PATCH"):
        return b"Content-Length: %d\r\n%b" % (request.length, expect)
    return b""


def response_bytes(response: Response, *, chunked: bool, closes: bool) -> bytes:
    """The head that goes to the client."""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif response.length is None or response.length == CHUNKED:
        framing = b""
    else:
        framing = b"Content-Length: %d\r\n" % response.length
    return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (
        response.status,
        response.reason,
        response.fields,
        framing,
        _ROBOTS,
        b"Connection: close\r\n" if closes else b"",
    )


def ready_bytes(head: bytes) -> tuple[Response, bytes]:
    """A response head, and what the client gets when body and connection need nothing further; b"" if they may.

    Raises BadResponse.
    """
    response = read_response(head)
    if response.status < 200 or response.status in BODYLESS or response.length in (None, CHUNKED):
        return response, b""
    return response, response_bytes(response, chunked=False, closes=False)


def interim_bytes(response: Response) -> bytes:
    """A 1xx answer; it never has a body."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (response.status, response.reason, response.fields)


def switching_bytes(response: Response) -> bytes:
    """The 101 of a WebSocket."""
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n" % response.fields
