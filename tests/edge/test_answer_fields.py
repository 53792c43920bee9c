"""What every answer says to browsers and search engines, whatever the application says."""

from __future__ import annotations

import pytest

from tests.edge.conftest import Announce, ready_route
from tests.edge.wire import Reader, Writer, origin, read_message, visitor


def get(label: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {label}.localhost\r\n\r\n".encode()


@pytest.mark.parametrize(
    "framing", ["Content-Length: 2\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "\r\nhi"]
)
@pytest.mark.parametrize("own", ["", "origin-agent-cluster: ?0\r\n", "Set-Cookie: a=b\r\n"])
async def test_every_answer_keeps_siblings_and_search_engines_away(
    port: int, announce: Announce, framing: str, own: str
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(f"HTTP/1.1 200 OK\r\n{own}{framing}".encode())
        writer.close()

    async with origin(script) as vm, visitor(port) as browser:
        answer = await browser.ask(get(await announce(ready_route(vm.port))))

    assert answer.body == b"hi"
    assert answer.all("origin-agent-cluster") == ["?1"]
    assert answer.all("x-robots-tag") == ["noindex, nofollow"]


async def test_page_of_our_own_keeps_siblings_away_too(port: int) -> None:
    async with visitor(port) as browser:
        answer = await browser.ask(get("leads-nowhere"))

    assert (answer.status, answer.all("origin-agent-cluster")) == (404, ["?1"])
