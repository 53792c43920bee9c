"""Plain heads at one pass: nothing in them asks for more than to be passed on. Pure.

Both functions give None for every other head, which then goes the general way of edge.head; for a plain one they must
mean what that means. They exist twice: as one expression each, and compiled where `python -m edge.compile` was run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

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
    rb"|x-robots-tag|x-stagely[^:]*|set-cookie"
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
_REQUEST = re.compile(
    rb"\n%b(?i:host):[\t ]*+([A-Za-z0-9_.:\-]++)[\t ]*+\r\n%b(?:%b%b)?+"
    % (_usual(REQUEST_NAMES), _usual(REQUEST_NAMES), _KEPT_ALIVE, _usual(REQUEST_NAMES))
)
_RESPONSE = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?+\r\n"
    rb"%b(?i:content-length):[\t ]*+([0-9]{1,18})[\t ]*+\r\n%b(?:%b(?:(?i:keep-alive):[\t\x20-\x7e]*+\r\n)?+%b)?+"
    % (_usual(RESPONSE_NAMES), _usual(RESPONSE_NAMES), _KEPT_ALIVE, _usual(RESPONSE_NAMES))
)


def request_block_by_expression(block: bytes) -> tuple[bytes, bytes] | None:
    """The fields to forward and the host in lower case; `block` begins with the line feed before its first line."""
    plain = _REQUEST.fullmatch(block)
    if plain is None or block.count(b"\n") > FIELDS_MAX + 1:
        return None
    before, host, between, behind = plain.groups(b"")
    host = host.lower()
    if HOST.fullmatch(host) is None or b".." in host:
        return None
    return before + between + behind, host


def response_head_by_expression(head: bytes) -> tuple[int, bytes, bytes, int] | None:
    """Status, reason, the fields to forward, and the body's length."""
    plain = _RESPONSE.fullmatch(head)
    if plain is None:
        return None
    status, reason, before, length, between, behind = plain.groups(b"")
    return int(status), reason, before + between + behind, int(length)


RULES = hashlib.sha256(b" ".join((TOKEN, HOST.pattern, REQUEST_NAMES, RESPONSE_NAMES))).hexdigest()
request_block: Callable[[bytes], tuple[bytes, bytes] | None] = request_block_by_expression
response_head: Callable[[bytes], tuple[int, bytes, bytes, int] | None] = response_head_by_expression
IS_COMPILED = False
try:
    from edge import _plain
except ImportError:
    pass  # Nobody compiled it.
else:
    # A reader left over from before the rules changed could let pass what is refused today.
    if getattr(_plain, "RULES", "") == RULES:
        request_block, response_head = _plain.request_block, _plain.response_head
        IS_COMPILED = True
