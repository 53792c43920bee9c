"""A hostile origin behind connections that visitors share: no byte of one visitor's answer reaches another."""

from __future__ import annotations

import asyncio
import random
import re
import select
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.edge.conftest import Announce, EdgeProcess, ready_route, running_edge
from tests.edge.wire import (
    WAIT_S,
    Message,
    Origin,
    Reader,
    Visitor,
    Writer,
    ok,
    origin,
    read_head,
    read_message,
    visitor,
)

VISITORS = 6
_TOKEN = re.compile(rb"\[\[([^\]]*)\]\]")
Trick = Callable[[random.Random, Reader, Writer, bytes], Awaitable[bool]]


def token_of(message: Message) -> bytes:
    return b"[[%b]]" % message.line.split(" ")[1].strip("/").encode()


# Each trick answers one request with its own token alone; False: the connection is of no more use.


async def honest(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token * chance.choice((1, 5, 4000))))
    return True


async def split(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    answer = ok(token * 3)
    for at in range(0, len(answer), step := chance.randint(1, 30)):
        writer.write(answer[at : at + step])
        await asyncio.sleep(0)
    return True


async def double(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token) + ok(token) * chance.randint(1, 3))
    return True


async def double_later(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token))
    return await unasked(chance, reader, writer, ok(token))


async def trailing(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token) + token[: chance.randint(1, 5)])
    return True


async def trailing_later(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token))
    return await unasked(chance, reader, writer, chance.choice((b"\r\n", b"0\r\n\r\n", token, b"HTTP/1.1 200 O")))


async def unasked(chance: random.Random, reader: Reader, writer: Writer, wire: bytes) -> bool:
    """Write when no request lies there to be answered: what comes later than a request is an answer to it."""
    for _ in range(chance.randint(0, 20)):
        await asyncio.sleep(0)
    unread = reader._buffer  # type: ignore[attr-defined]  # There is no public way to look without waiting.
    if not unread and not select.select([writer.get_extra_info("socket").fileno()], [], [], 0)[0]:
        writer.write(wire)
    return True


async def too_long(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(token), token * 2))
    return True


async def too_short(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(token) + 9, token))
    return False


async def two_lengths(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n%b\r\n0\r\n\r\n" % token[:3]
    )
    return True


async def bad_chunks(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    ending = chance.choice((b"0\r\n\r\n" + ok(token), b"-1\r\n", b"0\r\nX\r\n\r\n", b"0\n\n", b""))
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%b" % (len(token), token, ending))
    return bool(ending)


async def flood(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    hint = b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % token
    writer.write(hint * chance.choice((1, 7, 8, 9, 50)) + ok(token))
    return True


async def hints_later(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(ok(token))
    return await unasked(
        chance, reader, writer, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: %b\r\n\r\n" % token
    )


async def bodyless(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    status = chance.choice((b"204 No Content", b"304 Not Modified"))
    writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(token), token))
    return True


async def switching(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + token)
    return True


async def until_close(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + token)
    return False


async def nothing(chance: random.Random, reader: Reader, writer: Writer, token: bytes) -> bool:
    return False


TRICKS: tuple[Trick, ...] = (
    *(honest, honest, honest, split, double, double_later, trailing, trailing_later, too_long, too_short, two_lengths),
    *(bad_chunks, flood, hints_later, bodyless, switching, until_close, nothing),
)  # fmt: skip


def hostile(made: Origin, chance: random.Random) -> Callable[[Reader, Writer], Awaitable[None]]:
    """An origin that plays a random trick on each request, sometimes before it has read its body."""

    async def serve(reader: Reader, writer: Writer) -> None:
        while True:
            message = await read_head(reader)
            made.requests.append(message)
            length = int(message["content-length"] or 0)
            early = length > 0 and chance.random() < 0.3
            if not early:
                await reader.readexactly(length)
            if not await chance.choice(TRICKS)(chance, reader, writer, token_of(message)):
                return
            if early:
                await reader.readexactly(length)

    return serve


async def ask_for_ever(port: int, label: str, chance: random.Random, numbers: list[int]) -> list[str]:
    """Ask with each of these numbers, and say where another's number came back."""
    crossed = []
    while numbers:
        async with visitor(port) as browser:
            open_still = True
            while numbers and open_still:
                number = numbers.pop()
                got, open_still = await one_exchange(browser, label, number, chance)
                crossed += [f"{number} got {token!r}" for token in _TOKEN.findall(got) if token != b"%d" % number]
    return crossed


async def one_exchange(browser: Visitor, label: str, number: int, chance: random.Random) -> tuple[bytes, bool]:
    """All bytes that came for one request, and whether another may follow on the connection."""
    method, body = chance.choice((("GET", b""), ("GET", b""), ("POST", b"x" * 20), ("HEAD", b""), ("DELETE", b"")))
    head = f"{method} /{number} HTTP/1.1\r\nHost: {label}.localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    got = b""
    try:
        await browser.send(head.encode() + body)
        while True:
            message = await read_head(browser.reader)
            got += message.raw
            if message.status >= 200:
                break
        got += await rest_of(browser.reader, message, method)
    except (EOFError, ConnectionError) as cut:
        return got + getattr(cut, "partial", b""), False
    return got, message["connection"] != "close"


async def rest_of(reader: Reader, message: Message, method: str) -> bytes:
    if method == "HEAD" or message.status in (204, 304):
        return b""
    async with asyncio.timeout(WAIT_S):
        if message["transfer-encoding"] != "chunked":
            return await reader.readexactly(int(message["content-length"] or 0))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size + 2)
        return body + await reader.readexactly(2)


async def interleave(redis_url: str, announce: Announce, count: int, seed: int) -> tuple[list[str], Origin]:
    """Edge and origin share one thread here, so the origin knows whether its late bytes come before a request."""
    chance = random.Random(seed)
    made = Origin()
    async with origin(hostile(made, chance)) as vm, running_edge(redis_url) as edge, asyncio.TaskGroup() as tasks:
        label = await announce(ready_route(vm.port))
        numbers = list(range(count))
        asking = [
            tasks.create_task(ask_for_ever(edge.port, label, random.Random(seed + n), numbers)) for n in range(VISITORS)
        ]
        crossed = [one for task in asking for one in await task]
        made.connections = vm.connections
    return crossed, made


async def test_no_byte_crosses_in_some_interleavings(redis_url: str, announce: Announce) -> None:
    crossed, vm = await interleave(redis_url, announce, 600, seed=1)

    assert crossed == []
    assert vm.connections < len(vm.requests)  # Connections were shared.


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_byte_crosses_in_ten_thousand_interleavings(redis_url: str, announce: Announce) -> None:
    crossed, vm = await interleave(redis_url, announce, 10_000, seed=2)

    assert crossed == []
    assert vm.connections < len(vm.requests)


@pytest.mark.parametrize(
    "late",
    [ok(b"poison"), b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npoison", b"poison\r\n\r\n"],
    ids=["answer", "half-answer", "no-answer"],
)
async def test_what_came_late_is_not_the_answer_to_a_request_read_in_the_same_moment(
    edge_process: EdgeProcess, port: int, announce: Announce, late: bytes
) -> None:
    """The edge is stopped while both come, so that it finds the next request first and the late bytes behind it."""
    writers: list[Writer] = []

    async def script(reader: Reader, writer: Writer) -> None:
        writers.append(writer)
        while True:
            message = await read_message(reader)
            writer.write(ok(message.line.encode()))

    async with origin(script) as vm, visitor(port) as one, visitor(port) as two:
        label = await announce(ready_route(vm.port))
        await one.ask(f"GET /one HTTP/1.1\r\nHost: {label}.localhost\r\n\r\n".encode())
        edge_process.process.send_signal(signal.SIGSTOP)
        try:
            await two.send(f"GET /two HTTP/1.1\r\nHost: {label}.localhost\r\n\r\n".encode())
            writers[0].write(late)
            await writers[0].drain()
        finally:
            edge_process.process.send_signal(signal.SIGCONT)
        answer = await two.answer()

    assert answer.body == b"GET /two HTTP/1.1"
