"""Prints an outcome: one JSON object, or URLs on stdout and the rest on stderr."""

from __future__ import annotations

import json
import sys

from stagely.cli import reach
from stagely.cli.outcome import Outcome, failure_lines
from stagely.cli.refusal import EXIT_READY


def show(outcome: Outcome, next_command: str, *, as_json: bool) -> None:
    """`next_command`: what shows the whole log of this pull request, or approves its commit."""
    if as_json:
        print(json.dumps(outcome.as_json()))
        return
    if outcome.exit_code != EXIT_READY:
        for line in (f"{outcome.state}", *failure_lines(outcome, next_command)):
            print(line, file=sys.stderr)
        return
    has_more = outcome.message not in ("", outcome.state)
    print(f"{outcome.state}: {outcome.message}" if has_more else outcome.state, file=sys.stderr)
    if outcome.state == "ready":
        _show_urls(outcome)


def prefixed(stream: str, data: str) -> str:
    """Log lines with their stream's name in front of each."""
    return "\n".join(f"{stream:<16} │ {line}" for line in data.rstrip("\n").split("\n"))


def _show_urls(outcome: Outcome) -> None:
    width = max((len(service) for service in outcome.urls), default=0)
    for service, url in outcome.urls.items():
        print(f"{service.ljust(width)}  {url}")
    first = next(iter(outcome.urls.values()), "")
    if first and not reach.resolves(first):
        print(f"This machine does not resolve that name. Try: {reach.curl_line(first)}", file=sys.stderr)
