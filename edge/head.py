"""The strict check of message heads: one anchored expression for the line, one for the fields, one for what matters.

Nothing that fails here is repaired. What passes is cut apart, and only those checked parts are ever sent on. Pure.

Source: RFC 9112; refused beyond it is what two common parsers disagree about (security notes 3.2): white space before
the colon, folded lines, bare CR or LF, repeated Host or length, framing fields spelled with an underscore.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge import plain
from edge.memo import Memo
from edge.plain import FIELDS_MAX, HEAD_MAX, HOST, LINE_MAX, REQUEST_NAMES, RESPONSE_NAMES, TOKEN, initials

CHUNKED = -1

# Possessive repeats (`++`, `*+`): a field that fails must not be tried again in smaller bites.
_FIELDS = re.compile(rb"\n(?:" + TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z\-]{0,31}) ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_ABSOLUTE = re.compile(rb"http://([^/?]+)(/.*|\?.*)?", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")


def _special(names: bytes) -> re.Pattern[bytes]:
    """Finds every line of these names. The look-ahead passes most others by at one glance."""
    return re.compile(rb"(?i)\n(?=[%b])(%b):([^\r]*)\r" % (initials(names), names))


_REQUEST_SPECIAL, _RESPONSE_SPECIAL = _special(REQUEST_NAMES), _special(RESPONSE_NAMES)
_COOKIE_DOMAIN = re.compile(rb";[ \t]*domain[ \t]*(?:=[^;\r]*)?(?=[;\r])", re.IGNORECASE)
_REFUSED = {b"content_length", b"transfer_encoding", b"content-length", b"transfer-encoding", b"host"}
_NOT_OFFERED = (b"CONNECT", b"TRACE")
_KEEP_ALIVE = {b"connection": b"keep-alive"}
_OURS = frozenset((b"close", b"keep-alive", b"upgrade", b""))
_USUAL_CONNECTIONS = {value: frozenset((value,)) for value in (b"", b"keep-alive", b"close")}


class HeadRefused(Exception):
    """A request head that is answered with `status` and never forwarded."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class BadResponse(Exception):
    """A response head that no client gets to see."""


class Request(NamedTuple):
    """A checked request head.

    target: origin form. host: lower case, with its port when one was sent. minor: 0 or 1 of HTTP/1.x.
    fields: what is forwarded as it came, lines with their CRLF; Host, framing, hop-by-hop and look-alikes are cut out.
    length: of the body in bytes; CHUNKED when it says so itself; 0 without one. closes: the client ends the connection.
    websocket: it asks to become one. expects: it waits for 100 Continue.
    """

    method: bytes
    target: bytes
    host: bytes
    minor: int
    fields: bytes
    length: int
    closes: bool
    websocket: bool
    expects: bool


class Response(NamedTuple):
    """A checked response head; `length` is None when the body ends with the connection. Else as in Request."""

    status: int
    reason: bytes
    minor: int
    fields: bytes
    length: int | None
    closes: bool
    websocket: bool


def take_request(data: bytes) -> tuple[Request, bytes] | None:
    """The first request of what a client sent, and what follows its head; None when that is incomplete.

    Raises HeadRefused, also when waiting for the head's end is in vain.
    """
    request = plain.request(data, Request)
    if request is not None:
        return request, b""
    end = data.find(b"\r\n\r\n", 0, HEAD_MAX + 4)
    if end < 0:
        check_start(data)
        return None
    return read_request(data[: end + 2]), data[end + 4 :]


def read_request(head: bytes) -> Request:
    """The request of a head that ends with the CRLF of its last line. Raises HeadRefused."""
    line_end = head.index(b"\r\n")
    line = _REQUEST_LINE.fullmatch(head, 0, line_end)
    if line is None or line_end > LINE_MAX:
        raise _refused_line(head[:line_end])
    fields, host, special = _request_blocks[head[line_end + 1 :]]
    method, target, minor = line.groups()
    if target[0] != 0x2F:
        target = _origin_form(target, host)
    if method in _NOT_OFFERED:
        raise HeadRefused(405, f"{method.decode()} is not offered here")
    is_old = minor == b"0"
    request = Request(method, target, host, minor[0] & 1, fields, 0, is_old, False, False)
    return request if special is None else _with_special(request, special)


def _read_request_block(block: bytes) -> tuple[bytes, bytes, dict[bytes, bytes] | None]:
    """The fields to forward, the host, and the special fields, None when they ask for nothing. Raises HeadRefused."""
    if _FIELDS.fullmatch(block) is None:
        raise HeadRefused(400, "a header field is malformed")
    if block.count(b"\n") > FIELDS_MAX + 1:
        raise HeadRefused(431, f"more than {FIELDS_MAX} header fields")
    fields, special = _take_out(block, _REQUEST_SPECIAL)
    host = special.pop(b"host", b"")
    if HOST.fullmatch(host) is None or b".." in host:
        raise HeadRefused(400, "the Host field is missing or malformed")
    return fields, host, special if special and special != _KEEP_ALIVE else None


_request_blocks = Memo(_read_request_block)


def _refused_line(line: bytes) -> HeadRefused:
    if len(line) > LINE_MAX:
        return HeadRefused(414, f"the request line is longer than {LINE_MAX} bytes")
    if re.fullmatch(TOKEN + rb"+ [\x21-\x7e]+ HTTP/[0-9]\.[0-9]", line) and not re.search(rb"HTTP/1\.[01]\Z", line):
        return HeadRefused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return HeadRefused(400, "the request line is malformed")


def _origin_form(target: bytes, host: bytes) -> bytes:
    """RFC 9112 section 3.2.2: an absolute target is taken, but only when it names the very host of the Host field."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or absolute[1].lower() != host:
        raise HeadRefused(400, "the request target is neither a path nor a URL of the Host field's host")
    path: bytes = absolute[2] or b"/"
    return path if path.startswith(b"/") else b"/" + path


def _take_out(block: bytes, special: re.Pattern[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The field lines without the special ones, and these in lower case by name; `block` begins with a line feed."""
    pieces = special.split(block)
    found: dict[bytes, bytes] = {}
    for at in range(1, len(pieces), 3):
        name = pieces[at].lower()
        value = pieces[at + 1].strip(b" \t").lower()
        if name in found:
            if name in _REFUSED or name == b"expect":
                raise HeadRefused(400, f"the {name.decode()} field is repeated")
            value = found[name] + b"," + value
        found[name] = value
    return b"".join(pieces[::3])[1:], found


def _with_special(request: Request, special: dict[bytes, bytes]) -> Request:
    """The request with what its framing, connection and expectation fields say."""
    if b"content_length" in special or b"transfer_encoding" in special:
        raise HeadRefused(400, "a framing field is spelled with an underscore")
    nominated = _tokens(special.get(b"connection", b""))
    expect = special.get(b"expect")
    if expect not in (None, b"100-continue"):
        raise HeadRefused(417, "only 100-continue can be expected")
    if b"trailer" in special:
        raise HeadRefused(400, "trailer fields are not accepted")
    length = _request_length(special, request.minor)
    websocket = special.get(b"upgrade") == b"websocket" and b"upgrade" in nominated
    return request._replace(
        fields=_without_nominated(request.fields, nominated),
        length=length,
        closes=request.closes or b"close" in nominated,
        websocket=websocket and request.method == b"GET" and request.minor == 1 and length == 0,
        expects=expect is not None and request.minor == 1 and length != 0,
    )


def _tokens(value: bytes) -> frozenset[bytes]:
    known = _USUAL_CONNECTIONS.get(value)
    return frozenset(token.strip(b" \t") for token in value.split(b",")) if known is None else known


def _request_length(special: dict[bytes, bytes], minor: int) -> int:
    coding, length = special.get(b"transfer-encoding"), special.get(b"content-length")
    if coding is not None:
        if length is not None or coding != b"chunked" or minor == 0:
            raise HeadRefused(400, "Transfer-Encoding must be one `chunked`, on HTTP/1.1, without Content-Length")
        return CHUNKED
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise HeadRefused(400, "Content-Length is not one number")
    return int(length)


def _without_nominated(fields: bytes, nominated: frozenset[bytes]) -> bytes:
    """RFC 9110 section 7.6.1: what Connection names ends here. Framing cannot be talked away like that."""
    names = nominated - _OURS
    if names & _REFUSED:
        raise HeadRefused(400, "Connection names a framing field")
    if not names or not fields:
        return fields
    lines = fields.split(b"\r\n")[:-1]
    return b"".join(line + b"\r\n" for line in lines if line.split(b":", 1)[0].lower() not in names)


def read_response(head: bytes) -> Response:
    """The response of a head that ends with the CRLF of its last line. Raises BadResponse."""
    line_end = head.index(b"\r\n")
    line = _STATUS_LINE.fullmatch(head, 0, line_end)
    block = head[line_end + 1 :]
    if line is None or _FIELDS.fullmatch(block) is None:
        raise BadResponse("status line or a header field is malformed")
    try:
        fields, special = _take_out(block, _RESPONSE_SPECIAL)
        nominated = _tokens(special.get(b"connection", b""))
        if not nominated <= _OURS:
            fields = _without_nominated(fields, nominated)
    except HeadRefused as refused:
        raise BadResponse(refused.reason) from refused
    if b"set-cookie" in special:
        fields += _confined_cookies(block)
    minor, status, reason = line.groups()
    length = _response_length(special, minor)
    closes = minor == b"0" or b"close" in nominated
    websocket = special.get(b"upgrade") == b"websocket" and b"upgrade" in nominated
    return Response(int(status), reason or b"", minor[0] & 1, fields, length, closes, websocket)


def _response_length(special: dict[bytes, bytes], minor: bytes) -> int | None:
    coding, length = special.get(b"transfer-encoding"), special.get(b"content-length")
    if coding is not None:
        if length is not None or coding != b"chunked" or minor == b"0":
            raise BadResponse("Transfer-Encoding is not one `chunked`, on HTTP/1.1, without Content-Length")
        return CHUNKED
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        raise BadResponse("Content-Length is not one number")
    return int(length)


def _confined_cookies(block: bytes) -> bytes:
    """The Set-Cookie lines without Domain: a preview's cookies stay on its own host (security notes E6)."""
    lines = re.findall(rb"(?<=\n)set-cookie:[^\n]*\n", block, re.IGNORECASE)
    return b"".join(_COOKIE_DOMAIN.sub(b"", line) for line in lines)


def websocket_key(fields: bytes) -> bytes | None:
    """The one Sec-WebSocket-Key among forwarded fields; None when there is none or more."""
    return _only(rb"(?:^|\n)sec-websocket-key:[ \t]*([^\r]*?)[ \t]*\r", fields)


def websocket_accept(fields: bytes) -> bytes | None:
    """The one Sec-WebSocket-Accept of a response."""
    return _only(rb"(?:^|\n)sec-websocket-accept:[ \t]*([^\r]*?)[ \t]*\r", fields)


def wants_json(fields: bytes) -> bool:
    """Whether the client asks for JSON and not for a page."""
    accept = b",".join(re.findall(rb"(?:^|\n)accept:([^\r]*)", fields, re.IGNORECASE)).lower()
    return b"json" in accept and b"text/html" not in accept


def _only(pattern: bytes, fields: bytes) -> bytes | None:
    found = re.findall(pattern, fields, re.IGNORECASE)
    return found[0] if len(found) == 1 else None


_HOPELESS = re.compile(rb"[^A-Z]|(?s:.*?)(?:(?<!\r)\n|\r[^\n]|\x00)")


def check_start(start: bytes) -> None:
    """Look at a head that has not ended yet. Raises HeadRefused when waiting for its end is in vain."""
    if len(start) > LINE_MAX and b"\r\n" not in start[: LINE_MAX + 2]:
        raise HeadRefused(414, f"the request line is longer than {LINE_MAX} bytes")
    if len(start) > HEAD_MAX:
        raise HeadRefused(431, f"the head is longer than {HEAD_MAX} bytes")
    if _HOPELESS.match(start) is not None:
        raise HeadRefused(400, "this is not HTTP/1.1")
