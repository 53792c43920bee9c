"""The request heads of the load. Pure.

one        the shortest head, always the same
browser    what a browser sends, 900 bytes, to 1,000 hosts in turn: 4,000 distinct heads
unique     the same with a cookie that never repeats: no two heads or header blocks are alike, nor are the answers'
"""

from __future__ import annotations

import hashlib

DOMAIN = "localhost"
HOSTS, HEADS, HEAD_BYTES = 1000, 4000, 900
SEPARATOR, COUNTER = b"\0", b"\1"  # In the file that `wrk` reads; COUNTER stands where a number of COUNTER_DIGITS goes.
COUNTER_DIGITS = 10
WEBSOCKET_LABEL = "ws"
_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


def label(number: int) -> str:
    return f"p{number}"


def host(number: int) -> str:
    return f"{label(number)}.{DOMAIN}"


def address(number: int) -> str:
    """Where the origin answers for that host: each preview has a machine, and so connections, of its own."""
    return f"127.1.{number >> 8}.{number & 255}"


def browser_heads(*, unique: bool) -> bytes:
    """The file of heads. Each has HEAD_BYTES once COUNTER is replaced."""
    return SEPARATOR.join(_browser_head(number, unique=unique) for number in range(HEADS))


def _browser_head(number: int, *, unique: bool) -> bytes:
    name = host(number % HOSTS)
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    lines = [
        f"GET /{'unique' if unique else 'assets'}/{digest[:8]}/chunk-{number % 97}.js?v={digest[8:16]} HTTP/1.1",
        f"Host: {name}",
        "Connection: keep-alive",
        'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
        "sec-ch-ua-mobile: ?0",
        'sec-ch-ua-platform: "Linux"',
        f"User-Agent: {_USER_AGENT}",
        "Accept: */*",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: no-cors",
        "Sec-Fetch-Dest: script",
        f"Referer: https://{name}/dashboard/{digest[16:24]}",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
        f"Cookie: session={digest}; theme=dark; view=",
    ]
    start = "\r\n".join(lines).encode()
    end = b"; n=" + (COUNTER if unique else b"0" * COUNTER_DIGITS) + b"\r\n\r\n"
    padding = HEAD_BYTES - len(start) - len(end) - (COUNTER_DIGITS - 1 if unique else 0)
    return start + (digest * 8)[:padding].encode() + end
