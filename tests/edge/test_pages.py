"""What a host shows that leads nowhere now: to people, to programs, and to attackers."""

from __future__ import annotations

import json
import time

from edge import pages
from edge.routes import Route, RouteStatus
from tests.edge.conftest import Announce, ready_route
from tests.edge.wire import origin, visitor

LOGS = "https://stagely.example/e/env1?a=1&b=2"


def waiting_route(
    status: RouteStatus, phase: str = "building 2 images", log_url: str = LOGS, since: float = 0
) -> Route:
    return Route(status, "shop", "local", 7, "env1", phase=phase, log_url=log_url, since=since)


def request(host: str, accept: str = "text/html,*/*", method: str = "GET", extra: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n{extra}\r\n".encode()


async def test_building_page_says_the_phase_and_loads_itself_again(port: int, announce: Announce) -> None:
    label = await announce(waiting_route(RouteStatus.BUILDING, since=time.time() - 42.5))

    async with visitor(port) as browser:
        answer = await browser.ask(request(f"{label}.localhost"))

    body = answer.body.decode()
    assert (answer.status, answer["retry-after"], answer["cache-control"]) == (503, "3", "no-store")
    assert '<meta http-equiv="refresh" content="3">' in body
    assert "Building 2 images, for 42 s" in body
    assert "pull request #7" in body


async def test_failed_page_links_to_the_log(port: int, announce: Announce) -> None:
    label = await announce(waiting_route(RouteStatus.FAILED, phase="service api ended with exit code 3"))

    async with visitor(port) as browser:
        answer = await browser.ask(request(f"{label}.localhost"))

    body = answer.body.decode()
    assert (answer.status, answer["retry-after"]) == (502, None)
    assert '<a href="https://stagely.example/e/env1?a=1&amp;b=2"' in body
    assert "service api ended with exit code 3" in body
    assert "http-equiv" not in body


async def test_not_found_page_is_the_same_for_every_host(port: int) -> None:
    hosts = ["nobody.localhost", "a.b.localhost", "localhost", "example.com", "127.0.0.1:80", "[::1]:80"]

    async with visitor(port) as browser:
        answers = [await browser.ask(request(host)) for host in hosts]

    assert {a.status for a in answers} == {404}
    assert len({a.body for a in answers}) == 1
    assert all(a["x-robots-tag"] == "noindex, nofollow" for a in answers)


async def test_program_that_asks_for_json_gets_json(port: int, announce: Announce) -> None:
    label = await announce(waiting_route(RouteStatus.BUILDING))

    async with visitor(port) as program:
        answer = await program.ask(request(f"{label}.localhost", "application/json"))

    assert answer["content-type"] == "application/json"
    assert json.loads(answer.body) == {
        "code": "preview_building",
        "status": 503,
        "title": "The preview of pull request #7 is being built",
        "detail": "Building 2 images This page looks again by itself.",
        "pr": 7,
        "log_url": LOGS,
        "retry_after_s": 3,
    }


async def test_page_answers_head_without_body_and_keeps_the_connection(port: int) -> None:
    async with visitor(port) as browser:
        await browser.send(request("nobody.localhost", method="HEAD"))
        head = await browser.answer(bodyless=True)
        full = await browser.ask(request("nobody.localhost"))

    assert head["content-length"] == str(len(full.body))


async def test_page_for_a_request_with_a_body_closes_without_losing_the_page(port: int) -> None:
    async with visitor(port) as uploader:
        await uploader.send(
            request("nobody.localhost", method="POST", extra="Content-Length: 300000\r\n") + b"x" * 9000
        )
        answer = await uploader.answer()
        await uploader.send(b"x" * 200000)

    assert (answer.status, answer["connection"]) == (404, "close")


async def test_record_that_is_no_route_is_not_found(port: int, announce: Announce) -> None:
    label = await announce(ready_route(80, ip="169.254.169.254"))

    async with visitor(port) as browser:
        answer = await browser.ask(request(f"{label}.localhost"))

    assert answer.status == 404


async def test_ready_host_that_gets_json_still_forwards(port: int, announce: Announce) -> None:
    async with origin() as vm, visitor(port) as program:
        answer = await program.ask(request(f"{await announce(ready_route(vm.port))}.localhost", "application/json"))

    assert answer.body == b"ok"


def test_markup_in_a_record_is_shown_and_not_obeyed() -> None:
    route = waiting_route(RouteStatus.FAILED, phase="<script>alert(1)</script>", log_url='javascript:alert("x")')

    page = pages.html_body(pages.for_route(route))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "javascript:" not in page
    assert "<script" not in page


def test_pages_are_small_and_allow_only_their_own_style() -> None:
    answer = pages.answer_bytes(pages.NOT_FOUND, as_json=False, without_body=False, closes=False).decode()

    assert len(answer) < 4096
    assert "Content-Security-Policy: default-src 'none'; style-src 'sha256-" in answer
    assert "prefers-color-scheme:dark" in answer
