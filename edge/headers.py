"""What the edge writes into heads: its own fields on the way to the VM, and framing on the way back. Pure."""

from __future__ import annotations

import urllib.parse

from edge.head import CHUNKED, Request, Response
from edge.routes import Route

BODYLESS = (204, 304)  # RFC 9110 section 6.4.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Previews are drafts: no search engine may list one (architecture section 7). And each is a stranger to its siblings:
# no page of one may reach into another's by `document.domain` (security notes E6).
ALWAYS = b"X-Robots-Tag: noindex, nofollow\r\nOrigin-Agent-Cluster: ?1\r\n"
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
    method, target, host, minor, fields, length, _, websocket, _ = request
    is_bare = method == b"GET" and length == 0 and not websocket
    return b"".join(
        (
            *(method, b" ", target, b" HTTP/1.1\r\nHost: " if minor else b" HTTP/1.0\r\nHost: ", host, b"\r\n", fields),
            *(b"" if is_bare else _request_framing(request), of_route),
            *(of_client, host, b'"\r\nX-Forwarded-Host: ', host, b"\r\n\r\n"),
        )
    )


def _request_framing(request: Request) -> bytes:
    if request.websocket:
        return b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
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
        ALWAYS,
        b"Connection: close\r\n" if closes else b"",
    )


def interim_bytes(response: Response) -> bytes:
    """A 1xx answer; it never has a body."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (response.status, response.reason, response.fields)


def switching_bytes(response: Response) -> bytes:
    """The 101 of a WebSocket."""
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n" % response.fields
