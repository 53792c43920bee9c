"""Plain pages for people: the repositories, and one pull request with its comments and statuses.

For browsers on this machine only (or with the admin token): previews can reach the forge too and shall not read them.
"""

from __future__ import annotations

import html
import ipaddress
import re
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from stagely.dev.forge.parts import Parts
from stagely.dev.forge.refusal import Refused
from stagely.dev.forge.rows import Comment, Pull, Repository, Status

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}article{border:1px solid #8886;border-radius:6px;padding:0 1rem;margin:1rem 0}"
    "pre{overflow:auto;background:#8882;padding:.5rem}small{opacity:.7}code{background:#8882;padding:0 .2em}"
)
_FENCE = re.compile(r"^(`{3,})[^\n`]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`|\*\*(?P<bold>[^*\n]+)\*\*"
    r"|\[(?P<text>[^\]\n]+)\]\((?P<link>https?://[^\s)]+)\)|(?P<url>https?://[^\s<>()]+)"
)


class PageRoutes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/{owner}/{repo}", self.repository),
            Route("/{owner}/{repo}/pull/{number:int}", self.pull),
        ]

    async def home(self, request: Request) -> Response:
        self._refuse_strangers(request)
        names = [html.escape(r.full_name) for r in self._parts.store.repositories()]
        return _page("Repositories", "".join(f'<p><a href="/{n}">{n}</a>' for n in names) or "<p>None yet.")

    async def repository(self, request: Request) -> Response:
        self._refuse_strangers(request)
        repository = self._known(request)
        rows = [_pull_line(repository, p) for p in self._parts.store.pulls(repository.id)]
        return _page(repository.full_name, "".join(rows) or "<p>No pull requests yet.")

    async def pull(self, request: Request) -> Response:
        self._refuse_strangers(request)
        repository = self._known(request)
        pull = self._parts.store.pull(repository.id, request.path_params["number"])
        if pull is None:
            raise _no_page()
        statuses = self._parts.store.statuses(repository.id, pull.head_sha)
        newest = {s.context: s for s in reversed(statuses)}.values()
        comments = self._parts.store.comments(repository.id, pull.number)
        facts = (
            f"<p><b>{pull.state}</b> · <code>{html.escape(pull.head_ref)}</code> at <code>{pull.head_sha[:12]}</code> "
            f"· {pull.commits} commits, {pull.changed_files} files</p>"
        )
        parts = [facts, *map(_status_line, newest), *map(_comment_block, comments)]
        return _page(f"{pull.title} #{pull.number}", "".join(parts))

    def _known(self, request: Request) -> Repository:
        found = self._parts.store.repository(request.path_params["owner"], request.path_params["repo"])
        if found is None:
            raise _no_page()
        return found

    def _refuse_strangers(self, request: Request) -> None:
        if "authorization" in request.headers:
            self._parts.person(request)
        elif request.client is None or not ipaddress.ip_address(request.client.host).is_loopback:
            raise _no_page()


def rendered(markdown: str) -> str:
    """The little Markdown that Stagely's comments use, as HTML; everything else is shown as it was typed."""
    text = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL).strip()
    pieces, end = [], 0
    for fence in _FENCE.finditer(text):
        pieces += [_paragraphs(text[end : fence.start()]), f"<pre>{html.escape(fence.group(2))}</pre>"]
        end = fence.end()
    return "".join([*pieces, _paragraphs(text[end:])])


def _paragraphs(text: str) -> str:
    blocks = [b.strip() for b in text.split("\n\n") if b.strip()]
    return "".join(f"<p>{'<br>'.join(_inline(line) for line in b.splitlines())}</p>" for b in blocks)


def _inline(line: str) -> str:
    """Escaped around and inside every mark, so that no comment can bring its own HTML."""
    out, end = [], 0
    for mark in _INLINE.finditer(line):
        out += [html.escape(line[end : mark.start()]), _marked(mark)]
        end = mark.end()
    return "".join([*out, html.escape(line[end:])])


def _marked(mark: re.Match[str]) -> str:
    said = {name: html.escape(value) for name, value in mark.groupdict().items() if value is not None}
    if "code" in said:
        return f"<code>{said['code']}</code>"
    if "bold" in said:
        return f"<b>{said['bold']}</b>"
    target = said.get("link") or said["url"]
    return f'<a rel="noopener noreferrer" href="{target}">{said.get("text", target)}</a>'


def _pull_line(repository: Repository, pull: Pull) -> str:
    link = f"/{html.escape(repository.full_name)}/pull/{pull.number}"
    return f'<p><a href="{link}">#{pull.number} {html.escape(pull.title)}</a> <small>{pull.state}</small>'


def _status_line(status: Status) -> str:
    sign = {"success": "✅", "pending": "⏳"}.get(status.state, "❌")
    text = f"{html.escape(status.context)}: {html.escape(status.description or status.state)}"
    return f"<p>{sign} {text} {_inline(status.target_url or '')}</p>"


def _comment_block(comment: Comment) -> str:
    who = "stagely[bot]" if comment.by_app else "local"
    when = datetime.fromtimestamp(comment.updated_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    edited = ", edited" if comment.updated_at != comment.created_at else ""
    return f"<article><p><small>{who}, {when}{edited}</small></p>{rendered(comment.body)}</article>"


def _page(title: str, body: str) -> Response:
    shown = html.escape(title)
    text = f"<!doctype html><meta charset=utf-8><title>{shown}</title><style>{_STYLE}</style><h1>{shown}</h1>{body}\n"
    # No script and nothing from elsewhere, whatever a comment says.
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}
    return HTMLResponse(text, headers=policy)


def _no_page() -> Refused:
    return Refused(404, "Not Found")
