"""The upgrade of an agent's connection: what a plain request is, and how every other one is answered. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Protocol

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from agent.protocol import CONNECT_PATH, NONCE_HEADER

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{0,5})?")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3.
_MAX_PLAIN_BYTES = 4096  # Several times what an agent behind a proxy sends; the library has its own limits.
_MAX_PLAIN_FIELDS = 64
_REQUEST = re.compile(
    rb"GET %b HTTP/1\.1\r\n((?:[!#$%%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)+)\r\n"
    % re.escape(CONNECT_PATH.encode())
)
_FIELD = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]+)\r\n")
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")
_KNOWN = frozenset({b"sec-websocket-key", b"sec-websocket-version"})
_NOT_PLAIN = re.compile(rb"sec-websocket-|origin\Z|content-length\Z|transfer-encoding\Z|expect\Z|te\Z|trailer\Z")
CROWDED_RETRY_S = "5"  # By then the queue of a herd is served; agents spread their next dials themselves.


class Door(Protocol):
    """What decides besides the request whether an agent is let in."""

    def is_healthy(self) -> bool: ...

    def is_crowded(self) -> bool: ...


def plain_key(data: bytes) -> tuple[bytes, int] | None:
    """The key of the request that `data` begins with, and the request's end; None when it is not beyond doubt."""
    found = _REQUEST.match(data, 0, _MAX_PLAIN_BYTES)
    if found is None:
        return None
    pairs = _FIELD.findall(found[1])
    fields = {name.lower(): value for name, value in pairs}
    if not len(pairs) == len(fields) <= _MAX_PLAIN_FIELDS:
        return None
    key = fields.get(b"sec-websocket-key", b"")
    is_plain = (
        _KEY.fullmatch(key)
        and fields.get(b"sec-websocket-version") == b"13"
        and fields.get(b"upgrade", b"").lower() == b"websocket"
        and fields.get(b"connection", b"").lower() == b"upgrade"
        and HOST.fullmatch(fields.get(b"host", b"").decode("ascii"))
        and not any(_NOT_PLAIN.match(name) for name in fields.keys() - _KNOWN)
    )
    return (key, found.end()) if is_plain else None


def acceptance(key: bytes, nonce: str) -> bytes:
    """The answer to a plain request (RFC 6455 section 4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    return head + accept + f"\r\n{NONCE_HEADER}: {nonce}\r\n\r\n".encode()


def answer(handshake: ServerProtocol, request: Request, door: Door) -> Response:
    """101 for an agent that may come in, and everything else with its reason."""
    refusal = _refusal(handshake, request, door)
    if refusal is not None:
        return refusal
    response = handshake.accept(request)
    if response.status_code != 101:
        response.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455 section 4.2.2: say which version would do.
    return response


def _refusal(handshake: ServerProtocol, request: Request, door: Door) -> Response | None:
    path = request.path.split("?", 1)[0]
    hosts = request.headers.get_all("Host")
    if path == "/healthz":
        return handshake.reject(200, "ok\n") if door.is_healthy() else handshake.reject(503, "failed\n")
    if path != CONNECT_PATH:
        return handshake.reject(404, f"Agents connect to {CONNECT_PATH}.\n")
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        return handshake.reject(400, "Exactly one Host header with the name of a host is needed.\n")
    if door.is_crowded():
        crowded = handshake.reject(503, "Too many agents come at once. Try again in a moment.\n")
        crowded.headers["Retry-After"] = CROWDED_RETRY_S
        return crowded
    if "Origin" in request.headers:
        return handshake.reject(403, "This address is for agents, not for browsers: no Origin, please.\n")
    return None
