"""The answers the edge gives itself: a small page without scripts, or JSON for who asks. Pure."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import html
import json
import pathlib
import string
import time
from dataclasses import dataclass
from http import HTTPStatus

from edge.headers import ALWAYS
from edge.routes import Route, RouteStatus

REFRESH_S = 3  # A build takes a minute or more; a person who waits for it sees it within three seconds.

_HERE = pathlib.Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text("utf-8").strip()
_TEMPLATE = string.Template((_HERE / "page.html").read_text("utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TONES = {"run": "◐", "bad": "✕", "idle": "○"}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer. code: stable, for programs. state: one word; title and lines: for people, in reading order.

    tone: run, bad or idle. link: where to read more, or "". retry_after_s: 0 when waiting does not help.
    refreshes: the page loads itself again after that time. location: where the client is sent instead, or "".
    """

    status: int
    code: str
    state: str
    title: str
    lines: tuple[str, ...]
    tone: str = "idle"
    link: str = ""
    retry_after_s: int = 0
    refreshes: bool = False
    pr: int | None = None
    location: str = ""


NOT_FOUND = Page(
    status=404,
    code="preview_not_found",
    state="Not found",
    title="There is no preview at this address",
    lines=("It was closed with its pull request, or the address is not complete.",),
)


def for_route(route: Route | None) -> Page:
    """The page of a host that leads nowhere now; the same bytes for every unknown host."""
    if route is None:
        return NOT_FOUND
    if route.status is RouteStatus.FAILED:
        return _failed(route)
    return _building(route)


def _building(route: Route) -> Page:
    phase = route.phase or "preparing"
    return Page(
        status=503,
        code="preview_building",
        state="Building",
        title=f"The preview of pull request #{route.pr} is being built",
        lines=(phase[0].upper() + phase[1:] + _since(route.since), "This page looks again by itself."),
        tone="run",
        link=_safe_link(route.log_url),
        retry_after_s=REFRESH_S,
        refreshes=True,
        pr=route.pr,
    )


def _failed(route: Route) -> Page:
    return Page(
        status=502,
        code="preview_failed",
        state="Failed",
        title=f"The preview of pull request #{route.pr} failed",
        lines=(*((route.phase,) if route.phase else ()), "Push a fix and it starts again."),
        tone="bad",
        link=_safe_link(route.log_url),
        pr=route.pr,
    )


def _since(since: float) -> str:
    seconds = int(time.time() - since) if since else -1
    if not 0 <= seconds < 86400:
        return ""
    return f", for {seconds} s" if seconds < 120 else f", for {seconds // 60} min"


def _safe_link(url: str) -> str:
    return url if url.startswith(("https://", "http://")) else ""


def unreachable(status: int, reason: str) -> Page:
    """The route is ready, but its machine does not answer as it should."""
    return Page(
        status=status,
        code="preview_unreachable",
        state="Not answering",
        title="The preview does not answer",
        lines=(reason[0].upper() + reason[1:] + ".", "It may be starting again. This page looks again by itself."),
        tone="bad",
        retry_after_s=REFRESH_S,
        refreshes=True,
    )


def away() -> Page:
    """Nobody can say where the host leads."""
    return Page(
        status=503,
        code="routes_unavailable",
        state="Unavailable",
        title="Previews cannot be looked up right now",
        lines=("Stagely's route store is away. This page looks again by itself.",),
        tone="bad",
        retry_after_s=REFRESH_S,
        refreshes=True,
    )


def over_limit() -> Page:
    """The host got more requests per second than it may."""
    return Page(
        status=429,
        code="rate_limited",
        state="Too many requests",
        title="This preview gets too many requests",
        lines=("Each preview takes a limited number of requests per second. Try again in a second.",),
        tone="bad",
        retry_after_s=1,
    )


def too_many_connections() -> Page:
    """One address has as many connections as it may."""
    return Page(
        status=429,
        code="too_many_connections",
        state="Too many connections",
        title="Your network has too many connections open",
        lines=("Each network takes a limited number of connections to previews. Close some tabs and try again.",),
        tone="bad",
        retry_after_s=REFRESH_S,
    )


def at_https(url: str) -> Page:
    """The preview is served by TLS alone."""
    return Page(
        status=308,
        code="https_required",
        state="Moved",
        title="This preview is at https",
        lines=("Your browser goes there by itself.",),
        location=url,
    )


def misdirected() -> Page:
    """RFC 9110 section 15.5.20: the handshake named another host than the request."""
    return Page(
        status=421,
        code="misdirected_request",
        state="Refused",
        title="The request was refused",
        lines=("It names another host than its TLS connection was opened for.",),
        tone="bad",
    )


def refused(status: int, reason: str) -> Page:
    """The request is not one that may be forwarded."""
    return Page(
        status=status,
        code="request_refused",
        state="Refused",
        title="The request was refused",
        lines=(reason[0].upper() + reason[1:] + ".",),
        tone="bad",
    )


def answer_bytes(page: Page, *, as_json: bool, without_body: bool, closes: bool) -> bytes:
    """The whole HTTP answer."""
    body = (json_body(page) if as_json else html_body(page)).encode()
    kind = "application/json" if as_json else "text/html; charset=utf-8"
    head = [
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *ALWAYS.decode().splitlines(),
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        f"Content-Security-Policy: {_POLICY}",
    ]
    if page.location:
        head.append(f"Location: {page.location}")
    if page.retry_after_s:
        head.append(f"Retry-After: {page.retry_after_s}")
    if closes:
        head.append("Connection: close")
    return "\r\n".join([*head, "", ""]).encode() + (b"" if without_body else body)


def html_body(page: Page) -> str:
    """The page for people."""
    lines = [f"<p>{html.escape(line)}</p>\n" for line in page.lines]
    if page.link:
        lines.append(f'<p><a href="{html.escape(page.link)}" rel="noreferrer">View logs</a></p>\n')
    return _TEMPLATE.substitute(
        refresh=f'<meta http-equiv="refresh" content="{page.retry_after_s}">\n' if page.refreshes else "",
        title=html.escape(page.title),
        style=_STYLE,
        tone=page.tone,
        mark=_TONES[page.tone],
        state=html.escape(page.state),
        lines="".join(lines),
    )


def json_body(page: Page) -> str:
    """The same for programs: {code, status, title, detail, pr?, log_url?, retry_after_s?}."""
    fields: dict[str, str | int | None] = {
        "code": page.code,
        "status": page.status,
        "title": page.title,
        "detail": " ".join(page.lines),
        "pr": page.pr,
        "log_url": page.link or None,
        "retry_after_s": page.retry_after_s or None,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})
