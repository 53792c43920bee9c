"""Reaching a preview from this machine, also where `*.localhost` does not resolve."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

FETCH_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


def resolves(url: str) -> bool:
    """Whether this machine finds the address of the URL's host."""
    try:
        return bool(socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM))
    except OSError:
        return False


def curl_line(url: str) -> str:
    """A command that shows the preview although its name does not resolve."""
    parts = urlsplit(url)
    return f"curl -H 'Host: {parts.netloc}' http://{LOOPBACK}:{parts.port or 80}{parts.path or '/'}"


def fetch(url: str, *, method: str = "GET", body: object = None) -> Answer:
    """Ask the edge for `url` by the Host header, over loopback. Raises httpx.TransportError when it does not answer."""
    parts = urlsplit(url)
    target = f"http://{LOOPBACK}:{parts.port or 80}{parts.path or '/'}"
    with httpx.Client(timeout=FETCH_TIMEOUT_S, trust_env=False, follow_redirects=False) as http:
        answer = http.request(method, target, headers={"Host": parts.netloc}, json=body)
    return Answer(answer.status_code, answer.text)
