"""From the edge to a VM by TLS: the right machine is reached as in clear, and no other one gets a byte of HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from edge.routes import encode, key_of, vm_name
from tests.certificates import Authority, Machine, certified_machine, new_authority
from tests.edge.conftest import EdgeProcess, edge_program, ready_route, run_edge
from tests.edge.test_upgrade import switched, upgrade
from tests.edge.vms import ingress_of, stranger
from tests.edge.wire import WAIT_S, Reader, Writer, ok, origin, read_head, read_message, until, visitor

ENVIRONMENT = "env1"  # Of `ready_route`.
SECRET = "cookie-of-a-visitor"
_labels = itertools.count(1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def edge(valkey_port: int, authority: Authority) -> Iterator[EdgeProcess]:
    """The real program, shared."""
    trusts = str(authority.trusted)
    with edge_program(f"redis://127.0.0.1:{valkey_port}/0", STAGELY_EDGE_VM_CA=trusts) as process:
        yield process


@pytest.fixture
def machine(tmp_path: Path, authority: Authority) -> Machine:
    return certified_machine(tmp_path / "vm", authority, ENVIRONMENT)


async def lead(redis: Redis, port: int, label: str = "", **changes: str | bool) -> str:
    """Announce a route by TLS to that port of this machine, under a label that no test used before."""
    label = label or f"shop{next(_labels)}"
    await redis.set(key_of(label), encode(ready_route(port, **{"tls": True, **changes})))
    return label


def request(label: str, method: str = "GET", more: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: {label}.localhost\r\nCookie: {SECRET}\r\n{more}\r\n".encode()


def refusals(edge: EdgeProcess) -> list[dict[str, Any]]:
    """What was logged since the last time of machines that did not prove who they are."""
    return [event for event in edge.fresh_events() if event["event"] == "vm identity refused"]


# The right machine.


async def test_requests_reach_the_machine_that_proves_itself_over_one_connection(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    async with origin() as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        label = await lead(redis, port)
        first = await browser.ask(request(label))
        second = await browser.ask(request(label, "POST", "Content-Length: 4\r\n") + b"body")

    assert [(a.status, a.body) for a in (first, second)] == [(200, b"ok"), (200, b"body")]
    assert web.connections == 1
    assert web.requests[0]["cookie"] == SECRET


async def test_websocket_messages_pass_both_ways(edge: EdgeProcess, redis: Redis, machine: Machine) -> None:
    async def echo_frames(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo_frames, "127.0.0.1", 0, max_size=None) as server:
        web_port = next(iter(server.sockets)).getsockname()[1]
        async with asyncio.timeout(WAIT_S), ingress_of(machine, web_port) as port:
            url = f"ws://{await lead(redis, port)}.localhost:{edge.port}/x"
            async with connect(url, host="127.0.0.1", port=edge.port, max_size=None) as browser:
                await browser.send("hello")
                small = await browser.recv()
                await browser.send(b"x" * 5_000_000)
                big = await browser.recv()

    assert (small, big) == ("hello", b"x" * 5_000_000)


async def test_a_large_upload_and_its_echo_arrive_as_they_were_sent(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    body = b"0123456789abcdef" * 500_000
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def digest(reader: Reader, writer: Writer) -> None:
        message = await read_message(reader)
        heard.set_result(hashlib.sha256(message.body).hexdigest())
        writer.write(ok(message.body))
        await writer.drain()
        await reader.read()

    async with origin(digest) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        head = request(await lead(redis, port), "POST", f"Content-Length: {len(body)}\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(browser.send(head + body))
            answer = await browser.answer()

    assert (answer.body == body, await heard) == (True, hashlib.sha256(body).hexdigest())


async def test_an_answer_streams_piece_by_piece(edge: EdgeProcess, redis: Redis, machine: Machine) -> None:
    seen = asyncio.Event()

    async def stream(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await seen.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
        await reader.read()

    async with origin(stream) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        await browser.send(request(await lead(redis, port)))
        head = await read_head(browser.reader)
        async with asyncio.timeout(WAIT_S):
            first = await browser.reader.readexactly(10)
            seen.set()
            second = await browser.reader.readexactly(16)

    assert (head.status, first, second) == (200, b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n")


async def test_a_visitor_that_does_not_read_holds_the_vm_back(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    sent = 0
    stopped = asyncio.Event()

    async def pour(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                async with asyncio.timeout(1.0):
                    await writer.drain()
                sent += 65536
        except TimeoutError:
            stopped.set()

    before = edge.resident_bytes()
    async with origin(pour) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        await browser.send(request(await lead(redis, port)))
        async with asyncio.timeout(WAIT_S):
            await stopped.wait()
        held = edge.resident_bytes() - before

    assert sent < 64 * 1024 * 1024
    assert held < 2 * 1024 * 1024


async def test_an_answer_that_ends_with_its_connection_is_whole(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    async def until_close(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 300_000)

    async with origin(until_close) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, port)))

    assert answer.body == b"x" * 300_000


async def test_a_kept_connection_that_the_vm_closed_is_replaced_unnoticed(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    closed = asyncio.Event()

    async def once(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(ok())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with origin(once) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        label = await lead(redis, port)
        first = await browser.ask(request(label))
        await closed.wait()
        second = await browser.ask(request(label))

    assert (first.status, second.status, web.connections) == (200, 200, 2)


async def test_a_tunnel_that_the_vm_ends_ends_for_the_visitor_behind_its_last_byte(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(switched() + b"x" * 200_000 + b"bye")

    async with origin(script) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        await browser.send(upgrade(await lead(redis, port)))
        await read_head(browser.reader)
        end = await browser.rest()

    assert end == b"x" * 200_000 + b"bye"


async def test_a_tunnel_that_the_visitor_ends_ends_for_the_vm_behind_its_last_byte(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    """As a whole: between edge and VM no direction of TLS ends alone."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(switched())
        heard.set_result(await reader.read())

    async with origin(script) as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        await browser.send(upgrade(await lead(redis, port)))
        await read_head(browser.reader)
        await browser.send(b"x" * 200_000 + b"bye")
        browser.writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            assert await heard == b"x" * 200_000 + b"bye"


async def test_a_renewed_certificate_drops_no_connection(
    edge: EdgeProcess, redis: Redis, machine: Machine, authority: Authority
) -> None:
    half = asyncio.Event()

    async def slowly(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await half.wait()
        writer.write(b"half")
        await reader.read()

    async with (
        origin(slowly) as web,
        ingress_of(machine, web.port) as port,
        visitor(edge.port) as early,
        visitor(edge.port) as late,
    ):
        label = await lead(redis, port)
        await early.send(request(label))
        await read_head(early.reader)
        assert machine.is_certified(authority, ENVIRONMENT)
        await late.send(request(label))
        head = await read_head(late.reader)
        half.set()
        async with asyncio.timeout(WAIT_S):
            bodies = [await browser.reader.readexactly(8) for browser in (early, late)]

    assert (head.status, bodies) == (200, [b"halfhalf", b"halfhalf"])


# A machine that is not.


async def test_a_recycled_address_of_another_environment_gets_no_byte_of_http(
    edge: EdgeProcess, redis: Redis, tmp_path: Path, authority: Authority
) -> None:
    another = certified_machine(tmp_path / "another", authority, "env2")
    edge.fresh_events()

    async with stranger(tls=another.certificate.context) as there, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))
        await until(lambda: there.opened)
        (refused,) = refusals(edge)

    assert (answer.status, there.opened) == (502, [b""])
    assert b"did not prove that it is the preview" in answer.body
    assert refused["environment_id"] == ENVIRONMENT
    assert refused["address"] == f"127.0.0.1:{there.port}"
    assert refused["expected"] == f"a certificate for {vm_name(ENVIRONMENT)} of a CA in {authority.trusted}"
    assert "Hostname mismatch" in refused["error"]


async def test_a_plain_web_server_at_a_recycled_address_sees_a_client_hello_and_nothing_else(
    edge: EdgeProcess, redis: Redis
) -> None:
    async with stranger(answer=ok(b"mine")) as there, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))
        await until(lambda: there.opened)

    (heard,) = there.heard
    assert answer.status == 502
    assert heard[:1] == b"\x16"
    assert vm_name(ENVIRONMENT).encode() in heard
    assert not any(word in heard for word in (b"GET", b"HTTP", b"shop", SECRET.encode(), ENVIRONMENT.encode()))


async def test_a_machine_of_a_foreign_ca_gets_no_byte_of_http(edge: EdgeProcess, redis: Redis, tmp_path: Path) -> None:
    foreign = certified_machine(tmp_path / "vm", new_authority(tmp_path, "foreign"), ENVIRONMENT)

    async with stranger(tls=foreign.certificate.context) as there, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))
        await until(lambda: there.opened)

    assert (answer.status, there.opened) == (502, [b""])


async def test_a_machine_whose_certificate_has_ended_gets_no_byte_of_http(
    edge: EdgeProcess, redis: Redis, tmp_path: Path, authority: Authority
) -> None:
    yesterday = datetime.now(UTC) - timedelta(hours=24, seconds=1)
    expired = certified_machine(tmp_path / "vm", authority, ENVIRONMENT, yesterday)
    edge.fresh_events()

    async with stranger(tls=expired.certificate.context) as there, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))
        await until(lambda: there.opened)
        (refused,) = refusals(edge)

    assert (answer.status, there.opened) == (502, [b""])
    assert "certificate has expired" in refused["error"]


async def test_a_machine_that_speaks_only_an_older_tls_gets_no_byte_of_http(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    context = machine.certificate.context
    assert context is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async with stranger(tls=context) as there, visitor(edge.port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))
        await until(lambda: there.opened)

    assert (answer.status, there.opened) == (502, [b""])


async def test_an_address_that_changes_hands_meanwhile_is_proved_anew(
    edge: EdgeProcess, redis: Redis, machine: Machine, tmp_path: Path, authority: Authority
) -> None:
    """Another environment's route to the very same address shares no connection with the first one's."""
    async with origin() as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
        first = await browser.ask(request(await lead(redis, port, "first")))
        second = await browser.ask(request(await lead(redis, port, "second", environment="env2")))

    assert (first.status, second.status, len(web.requests)) == (200, 502, 1)


async def test_an_answer_that_is_cut_off_is_not_passed_on_as_whole(
    edge: EdgeProcess, redis: Redis, machine: Machine
) -> None:
    """Without length only the end of the connection ends it: somebody on the way could put it there."""
    context = machine.certificate.context
    assert context is not None

    def cut(listener: socket.socket) -> None:
        tcp, _ = listener.accept()
        with tcp, context.wrap_socket(tcp, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf")
            tls.shutdown(socket.SHUT_WR)  # TCP's end without TLS's.
            tls.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with visitor(edge.port) as browser, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(cut, listener))
            await browser.send(request(await lead(redis, listener.getsockname()[1])))
            said = await browser.rest()

    assert said.endswith(b"4\r\nhalf\r\n")


# The edge's own file.


async def test_an_edge_without_a_ca_sends_nothing_to_a_vm_of_a_tls_route(
    port: int, redis: Redis, machine: Machine
) -> None:
    async with stranger(tls=machine.certificate.context) as there, visitor(port) as browser:
        answer = await browser.ask(request(await lead(redis, there.port)))

    assert (answer.status, there.heard) == (502, [])
    assert b"STAGELY_EDGE_VM_CA" in answer.body


async def test_the_next_ca_is_trusted_beside_the_old_one_without_a_restart(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    old, new = new_authority(tmp_path, "old"), new_authority(tmp_path, "new")
    of_old = certified_machine(tmp_path / "of_old", old, ENVIRONMENT)
    of_new = certified_machine(tmp_path / "of_new", new, ENVIRONMENT)

    with edge_program(redis_url, STAGELY_EDGE_VM_CA=str(old.trusted)) as edge:
        async with origin() as web, ingress_of(of_old, web.port) as port, ingress_of(of_new, web.port) as new_port:
            await lead(redis, port, "old")
            await lead(redis, new_port, "new")

            before = await statuses(edge, "old", "new")
            old.trusted.write_text(old.trusted.read_text() + new.trusted.read_text())
            await until(lambda: any(event["event"] == "vm ca loaded" for event in edge.fresh_events()))
            both = await statuses(edge, "old", "new")
            old.trusted.write_text(new.trusted.read_text())
            await until(lambda: any(event["event"] == "vm ca loaded" for event in edge.fresh_events()))
            after = await statuses(edge, "old", "new")

    assert (before, both, after) == ((200, 502), (200, 200), (502, 200))


async def statuses(edge: EdgeProcess, *labels: str) -> tuple[int, ...]:
    async with visitor(edge.port) as browser:
        return tuple([(await browser.ask(request(label))).status for label in labels])


async def test_a_file_that_is_broken_meanwhile_is_named_and_the_last_good_one_stays(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    authority = new_authority(tmp_path)
    machine = certified_machine(tmp_path / "vm", authority, ENVIRONMENT)

    with edge_program(redis_url, STAGELY_EDGE_VM_CA=str(authority.trusted)) as edge:
        async with origin() as web, ingress_of(machine, web.port) as port, visitor(edge.port) as browser:
            authority.trusted.write_text("no certificate")
            await until(lambda: any(event["event"] == "vm ca refused" for event in edge.fresh_events()))
            answer = await browser.ask(request(await lead(redis, port)))

    assert answer.status == 200


def test_an_edge_whose_ca_file_cannot_be_used_does_not_start(tmp_path: Path) -> None:
    code, event = run_edge(STAGELY_EDGE_VM_CA=str(tmp_path / "none"))

    assert (code, event["event"], event["error_code"]) == (2, "vm ca refused", "bad_certificate")
