"""The front door with a certificate: TLS 1.3 on real sockets, which ends each direction by itself as TCP does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from agent.certificate import Certificate
from agent.ingress import Address, Ingress
from agent.protocol import Certify, Outcome
from agent.tls import TlsServer
from edge.routes import vm_name
from tests.agent.test_ingress import LIMIT_S, WEB, always, service, until_ports
from tests.certificates import Authority, Machine, certified_machine, new_authority, new_machine

ENVIRONMENT = "env-1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


@pytest.fixture
def machine(tmp_path: Path, authority: Authority) -> Machine:
    return certified_machine(tmp_path / "state", authority, ENVIRONMENT)


@asynccontextmanager
async def open_door(web: Address, certificate: Certificate) -> AsyncIterator[int]:
    """The port of an ingress that leads to `web`."""
    ingress = Ingress(lambda _: web, "127.0.0.1", first_port=0, tls=lambda: certificate.context)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(ingress.run())
        ingress.expose((WEB,))
        await until_ports(ingress, 1)
        yield ingress.ports[0]
        task.cancel()


class Visit:
    """A visitor whose every TLS record is the test's own to send: asyncio's streams end both directions at once.

    Blocks: to be used in a thread.
    """

    def __init__(self, port: int, authority: Authority, environment: str = ENVIRONMENT) -> None:
        self.tcp = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = authority.client().wrap_bio(self._in, self._out, server_hostname=vm_name(environment))
        while not self._is_done(self.tls.do_handshake):
            self._receive()
        self.flush()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def end_sending(self) -> None:
        """close_notify, and nothing of TCP."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def read(self) -> bytes:
        """What comes next; b"" for a close_notify. Raises EOFError when TCP ends without one."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._receive()
            except ssl.SSLZeroReturnError:
                return b""

    def read_all(self) -> bytes:
        return b"".join(iter(self.read, b""))

    def flush(self) -> None:
        if self._out.pending:
            self.tcp.sendall(self._out.read())

    def serial(self) -> int:
        shown = self.tls.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)

    def _receive(self) -> None:
        self.flush()
        received = self.tcp.recv(65536)
        if not received:
            raise EOFError("TCP ended without close_notify")
        self._in.write(received)

    def _is_done(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except ssl.SSLWantReadError:
            return False
        return True


@contextmanager
def visiting(port: int, authority: Authority) -> Iterator[Visit]:
    visit = Visit(port, authority)
    with visit.tcp:
        yield visit


async def test_an_edge_that_trusts_the_ca_reaches_the_service(machine: Machine, authority: Authority) -> None:
    def visit(port: int) -> tuple[bytes, str | None]:
        with visiting(port, authority) as one:
            one.send(b"hello")
            one.end_sending()
            return one.read_all(), one.tls.version()

    async with service(always(b"web:")) as web, open_door(web, machine.certificate) as port:
        assert await asyncio.to_thread(visit, port) == (b"web:hello", "TLSv1.3")


async def test_the_visitor_may_end_first_and_still_hears_the_whole_answer(
    machine: Machine, authority: Authority
) -> None:
    """Only a close_notify says that the visitor has ended: TCP stays open."""

    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        writer.write(asked * 100_000)
        writer.close()

    def visit(port: int) -> bytes:
        with visiting(port, authority) as one:
            one.send(b"0123456789")
            one.end_sending()
            return one.read_all()

    async with service(answer_at_the_end) as web, open_door(web, machine.certificate) as port:
        assert await asyncio.to_thread(visit, port) == b"0123456789" * 100_000


async def test_the_service_may_end_first_and_still_hears_the_visitor(machine: Machine, authority: Authority) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def end_then_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"said")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    def visit(port: int) -> bytes:
        with visiting(port, authority) as one:
            said = one.read_all()
            one.send(b"and now I")
            one.end_sending()
            return said

    async with service(end_then_listen) as web, open_door(web, machine.certificate) as port:
        said = await asyncio.to_thread(visit, port)

        assert (said, await heard) == (b"said", b"and now I")


class OneByOne(asyncio.Protocol):
    """Takes one record, ends its own side, and takes the others when it is told to."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.heard = b""
        self.has_ended = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if not self.has_ended.is_set():
            self.has_ended.set()
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.write_eof)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


async def test_what_was_sent_before_our_side_ended_is_still_heard(machine: Machine, authority: Authority) -> None:
    """Its records have arrived and wait, for nobody takes them yet; OpenSSL must not find them behind our end."""
    context = machine.certificate.context
    assert context is not None
    inner = OneByOne()
    parts = [b"%d" % index * 16_000 for index in range(8)]

    def visit(port: int) -> bytes:
        with visiting(port, authority) as one:
            for part in parts:
                one.tls.write(part)
            one.flush()
            said = one.read_all()
            loop.call_soon_threadsafe(inner.transport.resume_reading)
            one.end_sending()
            with suppress(ConnectionResetError):
                one.tcp.recv(1)
            return said

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TlsServer(context, inner), "127.0.0.1", 0)
    async with asyncio.timeout(LIMIT_S), server:
        assert await asyncio.to_thread(visit, server.sockets[0].getsockname()[1]) == b""
        assert await inner.lost is None

    assert inner.heard == b"".join(parts)


async def test_a_visitor_that_is_cut_off_is_no_visitor_that_has_ended(machine: Machine, authority: Authority) -> None:
    """The service must not take half a body for a whole one."""
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.set_result(await reader.read())
        except ConnectionResetError:
            heard.set_result("reset")
        writer.transport.abort()

    def visit(port: int) -> None:
        with visiting(port, authority) as one:
            one.send(b"half")
            one.tcp.shutdown(socket.SHUT_WR)

    async with service(listen) as web, open_door(web, machine.certificate) as port:
        await asyncio.to_thread(visit, port)

        assert await heard == "reset"


async def test_an_answer_that_is_cut_off_ends_without_close_notify(machine: Machine, authority: Authority) -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        linger = (1).to_bytes(4, "little") + bytes(4)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    def visit(port: int) -> None:
        with visiting(port, authority) as one:
            one.read_all()

    async with service(break_off) as web, open_door(web, machine.certificate) as port:
        with pytest.raises((EOFError, ConnectionResetError)):
            await asyncio.to_thread(visit, port)


async def test_a_visitor_that_does_not_read_holds_the_service_back(machine: Machine, authority: Authority) -> None:
    sent = 0
    stopped = asyncio.Event()

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while sent < 1 << 30:
                writer.write(b"x" * 65536)
                async with asyncio.timeout(1.0):
                    await writer.drain()
                sent += 65536
        except TimeoutError:
            stopped.set()
        writer.transport.abort()

    async with service(pour) as web, open_door(web, machine.certificate) as port:
        visit = await asyncio.to_thread(Visit, port, authority)
        await stopped.wait()
        visit.tcp.close()

    assert sent < 64 * 1024 * 1024


async def test_a_service_that_does_not_read_holds_the_visitor_back(machine: Machine, authority: Authority) -> None:
    let_go = asyncio.Event()

    async def sit(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await let_go.wait()
        writer.transport.abort()

    def visit(port: int) -> int:
        """How many bytes were taken in."""
        sent = 0
        with visiting(port, authority) as one:
            one.tcp.settimeout(1.0)
            with suppress(TimeoutError):
                while sent < 1 << 30:
                    one.send(b"x" * 65536)
                    sent += 65536
        return sent

    async with service(sit) as web, open_door(web, machine.certificate) as port:
        sent = await asyncio.to_thread(visit, port)
        let_go.set()

    assert sent < 64 * 1024 * 1024


async def test_what_is_not_tls_reaches_no_service(machine: Machine) -> None:
    reached = asyncio.Event()

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    def visit(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as tcp:
            tcp.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b""
            with suppress(ConnectionResetError):
                while piece := tcp.recv(100):
                    said += piece
            return said

    async with service(note) as web, open_door(web, machine.certificate) as port:
        said = await asyncio.to_thread(visit, port)

    assert not reached.is_set()
    assert b"HTTP" not in said


async def test_who_never_ends_the_handshake_is_cut_off(machine: Machine) -> None:
    context = machine.certificate.context
    assert context is not None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TlsServer(context, asyncio.Protocol(), 0.05), "127.0.0.1", 0)

    async with server, asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\x16\x03\x01")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_renewed_certificate_is_shown_to_the_next_visitor_and_drops_nobody(
    machine: Machine, authority: Authority
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    def visit(port: int) -> tuple[bytes, bytes, bool]:
        with visiting(port, authority) as first:
            first.send(b"before")
            before = first.read()
            assert machine.is_certified(authority, ENVIRONMENT)
            with visiting(port, authority) as second:
                is_another = second.serial() != first.serial()
            first.send(b"after")
            return before, first.read(), is_another

    async with service(echo) as web, open_door(web, machine.certificate) as port:
        assert await asyncio.to_thread(visit, port) == (b"before", b"after", True)


async def test_a_restarted_agent_serves_with_the_certificate_it_had(machine: Machine, authority: Authority) -> None:
    restarted = Certificate(machine.state_dir)
    restarted.restore()

    def visit(port: int) -> bytes:
        with visiting(port, authority) as one:
            one.end_sending()
            return one.read_all()

    async with service(always(b"web")) as web, open_door(web, restarted) as port:
        assert await asyncio.to_thread(visit, port) == b"web"


def test_the_certificate_is_its_owners_alone(machine: Machine) -> None:
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in machine.state_dir.iterdir()}

    assert found == {"agent.key": 0o600, "ingress.crt": 0o600}


def test_a_certificate_for_another_key_is_refused_and_changes_nothing(
    tmp_path: Path, machine: Machine, authority: Authority
) -> None:
    another = new_machine(tmp_path / "another")
    before = machine.certificate.context

    result = machine.certificate.install(Certify("c2", authority.certify(another.public_key(), ENVIRONMENT)))

    assert result.outcome is Outcome.FAILED
    assert result.failure is not None
    assert result.failure.message.startswith("the certificate cannot be served with on this VM: ")
    assert machine.certificate.context is before
    restarted = Certificate(machine.state_dir)
    restarted.restore()
    assert restarted.context is not None


def test_an_agent_that_never_had_a_certificate_has_none_after_a_restart(tmp_path: Path) -> None:
    machine = new_machine(tmp_path / "state")

    machine.certificate.restore()

    assert machine.certificate.context is None


def test_an_agent_that_died_while_it_took_a_certificate_serves_with_the_one_before(machine: Machine) -> None:
    (machine.state_dir / "ingress.crt.draft").write_text("-----BEGIN CERT")
    (machine.state_dir / ".ingress.crt.new").write_text("-----BEGIN CERT")
    restarted = Certificate(machine.state_dir)

    restarted.restore()

    assert restarted.context is not None


def test_an_expired_certificate_is_for_the_edge_to_refuse(tmp_path: Path, authority: Authority) -> None:
    """The VM's own clock may be wrong."""
    machine = new_machine(tmp_path / "state")

    assert machine.is_certified(authority, ENVIRONMENT, datetime.now(UTC) - timedelta(days=2))
