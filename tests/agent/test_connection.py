"""A whole agent against a real WebSocket server: enrolment, resending, executing once, ending."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from agent import protocol
from agent.config import Config
from agent.connection import Backoff, Connection, Contact, Ends
from agent.identity import CredentialStore
from agent.main import Agent
from agent.outbox import Outbox, ResultStore
from agent.protocol import (
    Ack,
    AgentState,
    Build,
    Heartbeat,
    Hello,
    Log,
    Outcome,
    Prepare,
    Refused,
    Result,
    Shutdown,
    Status,
    Stop,
    ToAgent,
    ToCore,
    Welcome,
)
from agent.session import Effect, Identity, Session
from agent.spool import Spool
from agent.watchdog import watch

LIMIT_S = 30.0
BUILD = Build(
    command_id="c1",
    repo="http://127.0.0.1:1/none.git",
    sha="0" * 40,
    target="api",
    arch="amd64",
    context=".",
    dockerfile="Dockerfile",
    push_to="r/p/e/api",
    cache="",
    timeout_s=60.0,
)


@dataclass(slots=True)
class Core:
    """The other end. `answer` makes what is sent back for a Hello; everything received is kept."""

    answer: Callable[[Hello], ToAgent]
    acks: bool = True
    hellos: list[Hello] = field(default_factory=list)
    received: list[ToCore] = field(default_factory=list)
    heartbeats: int = 0
    nonces: list[str] = field(default_factory=list)
    gives_nonces: bool = True
    on_gone: Callable[[], None] = lambda: None
    socket: ServerConnection | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def talk(self, socket: ServerConnection) -> None:
        try:
            hello = protocol.decode_to_core(await _text(socket))
            assert isinstance(hello, Hello)
            self.hellos.append(hello)
            self.socket = socket
            await socket.send(protocol.encode(self.answer(hello)))
            self.changed.set()
            while True:
                await self._take(protocol.decode_to_core(await _text(socket)), socket)
        except ConnectionClosed:
            self.on_gone()

    def give_nonce(self, socket: ServerConnection, request: Request, response: Response) -> None:
        if self.gives_nonces:
            self.nonces.append(os.urandom(protocol.NONCE_BYTES).hex())
            response.headers[protocol.NONCE_HEADER] = self.nonces[-1]

    async def _take(self, message: ToCore, socket: ServerConnection) -> None:
        if isinstance(message, Heartbeat):
            self.heartbeats += 1
        else:
            self.received.append(message)
            if self.acks and isinstance(message, Log | Status | Result):
                await socket.send(protocol.encode(Ack(message.seq)))
        self.changed.set()

    async def send(self, message: ToAgent) -> None:
        assert self.socket is not None
        await self.socket.send(protocol.encode(message))

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.changed.clear()
            await self.changed.wait()

    def results(self) -> list[Result]:
        return [message for message in self.received if isinstance(message, Result)]

    @property
    def acked_seq(self) -> int:
        return max((m.seq for m in self.received if isinstance(m, Log | Status | Result)), default=0)


def welcoming(acked_seq: int = 0) -> Core:
    return Core(lambda _: Welcome(30.0, acked_seq))


async def _text(socket: ServerConnection) -> str:
    text = await socket.recv()
    assert isinstance(text, str)
    return text


@asynccontextmanager
async def listening(core: Core) -> AsyncIterator[Server]:
    async with serve(core.talk, "127.0.0.1", 0, compression=None, process_response=core.give_nonce) as server:
        yield server


@dataclass(slots=True)
class Machine:
    """Where an agent runs, and what would have turned the machine off."""

    folder: Path
    powered_off: list[str] = field(default_factory=list)

    async def power_off(self, reason: str) -> None:
        self.powered_off.append(reason)

    def agent(self, server: Server, silence_limit_s: float = 900.0) -> Agent:
        config = Config(
            "a1",
            _address(server),
            "t1",
            state_dir=self.folder / "state",
            work_dir=self.folder / "work",
            run_dir=self.folder / "run",
            docker_socket=self.folder / "docker.sock",
            silence_limit_s=silence_limit_s,
            reconnect_first_wait_s=0.05,
        )
        return Agent(config, self.power_off, first_port=0)

    def connection(self, server: Server, contact: Contact) -> Connection:
        """An agent's, which dials again at once."""
        outbox = Outbox(Spool(self.folder / "spool"), ResultStore(self.folder / "results"))
        session = Session(Identity("a1", "boot-1", "t1"), outbox.results, 0)
        credentials = CredentialStore(self.folder / "state", self.folder / "run")
        ends = Ends(session, credentials, outbox, contact, _ignore, lambda: Heartbeat(AgentState.IDLE))
        return Connection(_address(server), ends, Backoff(0.0, uniform=lambda low, _: low))


def _address(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/agent/connect"


async def _ignore(_: Effect) -> None:
    return


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        task = group.create_task(agent.run())
        yield task
        task.cancel()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_the_first_hello_brings_the_token_and_the_next_ones_the_session_that_it_announced(
    machine: Machine,
) -> None:
    core = welcoming()
    async with listening(core) as server:
        async with running(machine.agent(server)):
            await core.until(lambda: core.heartbeats > 0)
        async with running(machine.agent(server)):
            await core.until(lambda: len(core.hellos) == 2)

    first, second = core.hellos
    assert (first.agent_id, first.token, first.session) == ("a1", "t1", "")
    assert (second.token, second.session, second.boot_id) == ("", first.next_session, first.boot_id)
    assert second.next_session not in ("", first.next_session)
    assert second.public_key == first.public_key


async def test_a_hello_that_was_not_welcomed_is_said_again_with_the_same_sessions(machine: Machine) -> None:
    core = Core(lambda _: Refused("unavailable", "come back later"))
    async with listening(core) as server:
        async with running(machine.agent(server)):
            await core.until(lambda: len(core.hellos) == 2)
        async with running(machine.agent(server)):
            await core.until(lambda: len(core.hellos) == 3)

    assert len({(hello.session, hello.next_session) for hello in core.hellos}) == 1
    assert len({hello.signature for hello in core.hellos}) == 3  # Of three connections with a nonce each.


async def test_a_hello_is_signed_over_the_nonce_of_its_connection(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))

    (hello,), (nonce,) = core.hellos, core.nonces
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(hello.public_key))
    key.verify(bytes.fromhex(hello.signature), protocol.signed_bytes(hello, nonce))


async def test_a_core_that_gives_no_nonce_is_told_nothing(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    core = welcoming()
    core.gives_nonces = False
    gone = asyncio.Event()
    core.on_gone = gone.set
    caplog.set_level("INFO")
    async with listening(core) as server, running(machine.agent(server)):
        async with asyncio.timeout(LIMIT_S):
            await gone.wait()

    assert core.hellos == []
    assert "the core's answer has no Stagely-Nonce header" in caplog.text


async def test_a_failed_command_is_answered_with_its_reason(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))
        await core.send(BUILD)
        await core.until(lambda: bool(core.results()))

    (result,) = core.results()
    assert (result.command_id, result.outcome) == ("c1", Outcome.FAILED)
    assert result.failure is not None
    assert result.failure.step == "clone"
    assert "http://127.0.0.1:1/none.git could not be fetched at commit 000000000000" in result.failure.message


async def test_a_command_that_comes_again_is_answered_with_the_stored_result(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))
        await core.send(BUILD)
        await core.until(lambda: len(core.results()) == 1)
        await core.send(BUILD)
        await core.until(lambda: len(core.results()) == 2)

    first, second = core.results()
    assert (second.outcome, second.failure) == (first.outcome, first.failure)
    assert second.seq > first.seq
    assert [m.step for m in core.received if isinstance(m, Status)] == ["clone"]


async def test_what_was_not_acknowledged_is_sent_again_by_the_next_process(machine: Machine) -> None:
    deaf = Core(lambda _: Welcome(30.0, 0), acks=False)
    async with listening(deaf) as server, running(machine.agent(server)):
        await deaf.until(lambda: bool(deaf.hellos))
        await deaf.send(BUILD)
        await deaf.until(lambda: bool(deaf.results()))

    core = welcoming(acked_seq=1)
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.results()))

    assert core.received == deaf.received[1:]


async def test_a_dropped_socket_is_dialled_again_and_goes_on_where_the_core_is(machine: Machine) -> None:
    core = Core(lambda _: Welcome(30.0, 0))
    core.answer = lambda _: Welcome(30.0, core.acked_seq)
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))
        await core.send(Prepare("p1", ()))
        await core.until(lambda: len(core.results()) == 1)
        assert core.socket is not None
        core.socket.transport.abort()
        await core.until(lambda: len(core.hellos) == 2)
        await core.send(Prepare("p2", ()))
        await core.until(lambda: len(core.results()) == 2)

    seqs = [m.seq for m in core.received if isinstance(m, Log | Status | Result)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_stop_is_answered_also_when_there_is_nothing_to_stop(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))
        await core.send(Stop("s1", "unknown"))
        await core.until(lambda: len(core.results()) == 2)

    assert [(r.command_id, r.outcome) for r in core.results()] == [
        ("unknown", Outcome.CANCELLED),  # Should it still come, it is not executed.
        ("s1", Outcome.SUCCEEDED),
    ]


async def test_shutdown_is_answered_and_then_the_machine_is_off(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)) as task:
        await core.until(lambda: bool(core.hellos))
        await core.send(Shutdown("s1", "nobody owns this machine"))
        await task

    assert [r.command_id for r in core.results()] == ["s1"]
    assert machine.powered_off == ["nobody owns this machine"]


async def test_a_final_refusal_turns_the_machine_off(machine: Machine) -> None:
    core = Core(lambda _: Refused("revoked", "the environment is gone", final=True))
    async with listening(core) as server, running(machine.agent(server)) as task:
        await task

    assert machine.powered_off == ["the core refused this agent: the environment is gone (revoked)"]
    assert len(core.hellos) == 1


async def test_another_refusal_is_tried_again(machine: Machine) -> None:
    core = Core(lambda _: Refused("busy", "come back later"))
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: len(core.hellos) == 1)
        core.answer = lambda _: Welcome(30.0, 0)
        await core.until(lambda: core.heartbeats > 0)

    assert machine.powered_off == []
    assert [hello.token for hello in core.hellos] == ["t1", "t1"]


async def test_a_core_that_stays_silent_turns_the_machine_off(machine: Machine) -> None:
    async with listening(welcoming()) as server:
        agent = machine.agent(server, silence_limit_s=0.2)
        server.close()
        await server.wait_closed()
        async with running(agent) as task:
            await task

    (reason,) = machine.powered_off
    assert re.fullmatch(r"for \d+ s the core has been silent", reason)


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (Refused("busy", "come later"), "the core refused this agent: come later (busy)"),
        (Welcome(30.0, 0, version=9), f"the core speaks version 9 of the protocol, this agent {protocol.VERSION}"),
    ],
)
async def test_a_core_that_refuses_is_noted_and_is_no_contact(machine: Machine, answer: ToAgent, refusal: str) -> None:
    core, contact = Core(lambda _: answer), Contact(last=0.0)

    async with listening(core) as server, asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        dialling = group.create_task(machine.connection(server, contact).run())
        await core.until(lambda: len(core.hellos) == 2)  # The first answer was taken.
        dialling.cancel()

    assert contact == Contact(0.0, refusal)


async def test_a_core_that_only_refused_for_too_long_turns_the_machine_off(machine: Machine) -> None:
    await watch(Contact(time.monotonic() - 1000.0, "the core refused this agent"), 900.0, machine.power_off)

    assert machine.powered_off == ["for 1000 s the core refused this agent"]


async def test_a_frame_of_a_later_version_is_left_aside(machine: Machine) -> None:
    core = welcoming()
    async with listening(core) as server, running(machine.agent(server)):
        await core.until(lambda: bool(core.hellos))
        assert core.socket is not None
        await core.socket.send('{"type":"FUTURE","x":1}')
        await core.send(Prepare("p1", ()))
        await core.until(lambda: bool(core.results()))

    assert len(core.hellos) == 1
