"""Plain heads at one pass: nothing in them asks for more than to be passed on. Pure.

Both functions give None for everything else, which then goes the general way of edge.head; for what is plain they must
mean what that means. They exist twice: by expressions, and compiled where `python -m edge.compile` was run
(docs/adr/0009).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

from edge.memo import Memo

HEAD_MAX = 32768  # Security notes E9; browsers stay below 16 KiB even with many cookies.
LINE_MAX = 8192  # RFC 9112 section 3 asks for at least 8000.
FIELDS_MAX = 100
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
HOST = re.compile(
    rb"(?:[a-z0-9_](?:[a-z0-9_.\-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])"
    rb"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
# `[-_]`: an application behind CGI rules reads both as one name, and older servers read any other mark so too, which
# matters for the names that say who the visitor is.
REQUEST_NAMES = (
    rb"host|connection|content[-_]length|transfer[-_]encoding|upgrade|expect|te|trailer|keep[-_]alive|proxy[^:]*"
    rb"|forwarded|x[^0-9a-z:]forwarded[^:]*|x[^0-9a-z:]real[^0-9a-z:]ip|x[^0-9a-z:]stagely[^:]*|http2[-_]settings"
)
RESPONSE_NAMES = (
    rb"connection|content-length|transfer-encoding|upgrade|te|trailer|keep-alive|proxy[^:]*|alt-svc|clear-site-data"
    rb"|x-robots-tag|x-stagely[^:]*|set-cookie|origin-agent-cluster"
)


def initials(names: bytes) -> bytes:
    """With what such a name can begin."""
    return bytes(sorted({name[0] for name in names.split(b"|")}))


def _usual(names: bytes) -> bytes:
    """Lines of any name but these, all that stand together."""
    first = initials(names) + initials(names).upper()
    line = rb"(?:(?![%b])|(?!(?i:%b):))%b++:[\t\x20-\x7e\x80-\xff]*+\r\n" % (first, names, TOKEN)
    return rb"((?:%b)*+)" % line


_KEPT_ALIVE = rb"(?i:connection:[\t ]*+keep-alive)[\t ]*+\r\n"
_LINE = re.compile(rb"(?!CONNECT |TRACE )([A-Z][A-Z\-]{0,31}) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1\r")
_REQUEST = re.compile(
    rb"\n%b(?i:host):[\t ]*+([A-Za-z0-9_.:\-]++)[\t ]*+\r\n%b(?:%b%b)?+\r\n"
    % (_usual(REQUEST_NAMES), _usual(REQUEST_NAMES), _KEPT_ALIVE, _usual(REQUEST_NAMES))
)
_RESPONSE = re.compile(
    rb"HTTP/1\.1 ((?!204|304)[2-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?+\r\n"
    rb"%b(?i:content-length):[\t ]*+([0-9]{1,18})[\t ]*+\r\n%b(?:%b(?:(?i:keep-alive):[\t\x20-\x7e]*+\r\n)?+%b)?+"
    % (_usual(RESPONSE_NAMES), _usual(RESPONSE_NAMES), _KEPT_ALIVE, _usual(RESPONSE_NAMES))
)
_Kind = TypeVar("_Kind", bound=tuple[object, ...])


def request_by_expression(data: bytes, kind: type[_Kind], /) -> _Kind | None:
    """The request of a plain head that is all of `data`, as a tuple of that class: see edge.head.Request."""
    line = _LINE.match(data)
    if line is None or line.end() > LINE_MAX + 1 or len(data) > HEAD_MAX:
        return None
    plain = _blocks[data[line.end() :]]
    if plain is None:
        return None
    fields, host = plain
    # As `kind(...)` makes it, in half the time.
    return tuple.__new__(kind, (line[1], line[2], host, 1, fields, 0, False, False, False))


def _request_block(block: bytes) -> tuple[bytes, bytes] | None:
    """The fields to forward and the host in lower case; `block` begins with the line feed before its first line."""
    plain = _REQUEST.fullmatch(block)
    if plain is None or block.count(b"\n") > FIELDS_MAX + 2:
        return None
    before, host, between, behind = plain.groups(b"")
    host = host.lower()
    if HOST.fullmatch(host) is None or b".." in host:
        return None
    return before + between + behind, host


def answer_by_expression(data: bytes, ours: bytes, /) -> tuple[int, bytes] | None:
    """Status and what the visitor gets, `ours` among its fields, when a plain answer is here to its last byte."""
    end = data.find(b"\r\n\r\n", 0, HEAD_MAX)
    plain = _heads[data[: end + 2]] if end > 0 else None
    if plain is None or plain[2] != len(data) - end - 4:
        return None
    status, head, _ = plain
    return status, b"%b%b\r\n%b" % (head, ours, data[end + 4 :])


def _response_head(head: bytes) -> tuple[int, bytes, int] | None:
    """Status, what goes on of the head, and the body's length."""
    plain = _RESPONSE.fullmatch(head)
    if plain is None:
        return None
    status, reason, before, length, between, behind = plain.groups(b"")
    fields = b"".join((before, between, behind))
    return (
        int(status),
        b"HTTP/1.1 %b %b\r\n%bContent-Length: %d\r\n" % (status, reason, fields, int(length)),
        int(length),
    )


# To remember a head costs as much as to read it anew where that is compiled, and less than half of it here.
_blocks, _heads = Memo(_request_block), Memo(_response_head)
_LIMITS = b"%d %d %d" % (HEAD_MAX, LINE_MAX, FIELDS_MAX)
_EXPRESSIONS = (TOKEN, HOST.pattern, REQUEST_NAMES, RESPONSE_NAMES, _LINE.pattern, _REQUEST.pattern, _RESPONSE.pattern)
_SOURCE = Path(__file__).with_name("_plain.c")  # A mistake in it may be mended while every rule stays.
_COMPILED_OF = _SOURCE.read_bytes() if _SOURCE.exists() else b""
RULES = hashlib.sha256(b" ".join((_LIMITS, *_EXPRESSIONS, _COMPILED_OF))).hexdigest()
request, answer = request_by_expression, answer_by_expression
IS_COMPILED = False
try:
    from edge import _plain
except ImportError:
    pass  # Nobody compiled it.
else:
    # A reader left over from before the rules or its source changed could let pass what is refused today.
    if getattr(_plain, "RULES", "") == RULES:
        request, answer = _plain.request, _plain.answer
        IS_COMPILED = True
