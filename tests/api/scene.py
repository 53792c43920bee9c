"""One command on its way: a gateway process, an agent process, and the moments at which either may be killed."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from redis.asyncio import Redis
from temporalio.client import WorkflowHandle

from api.gateway.outbox import COMMAND_CHANNEL
from stagely.settings import Settings
from tests.api.ledger import SHA, Ledger, build_order, deploy_order
from tests.api.line import Line
from tests.api.machine import SERVICE_LOG, Machine
from tests.api.scripted import says
from tests.api.test_processes import answers, program
from tests.api.wire import DEADLINE_S, REDIAL_S
from tests.api.world import eventually, signals
from workflows.messages import AgentEvent, CommandOrder

GATEWAY = "tests.api.gateway_process"
VM = "vm-1"
Victims = tuple[str, ...]

_REPO = "http://forge/local/guestbook.git"
_IMAGE = "registry:8003/prj-1/env-1/api@sha256:" + "b" * 64
_FIRST_LINE = {"build": f"Cloning {_REPO} at {SHA}\n", "deploy": f"Checking out {_REPO} at {SHA}\n"}
_STREAM = {"build": "build/api", "deploy": "deploy"}
_BUILT, _DEPLOYED = ("build", "push", "end"), ("pulled", "up", "end")
# By point: the step that people see then, and the parts that the command's stream has.
_POINTS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "build": {
        "clone": ("clone", ()),
        "build": ("build", _BUILT[:1]),
        "push": ("build", _BUILT[:2]),
        "end": ("build", _BUILT),
    },
    "deploy": {
        "clone": ("clone", ()),
        "pull": ("pull", ()),
        "up": ("up", _DEPLOYED[:2]),
        "health": ("health", _DEPLOYED),
    },
}
SERVICE_SAYS = "".join(line for _, line in SERVICE_LOG)
LAST_POINT = {"build": "end", "deploy": "health"}


def order_of(kind: str) -> CommandOrder:
    """A build, or a deployment without a URL: the agent's ports are this machine's, and others use them."""
    order = build_order(VM) if kind == "build" else deploy_order(VM)
    return replace(order, deploy=replace(order.deploy, expose=(), urls=())) if order.deploy else order


def attempt_says(kind: str, attempt: int, until: str = "") -> str:
    """What an attempt writes into the command's stream, up to a point."""
    parts = _POINTS[kind][until or LAST_POINT[kind]][1]
    return _FIRST_LINE[kind] + "".join(
        f"Pulled {_IMAGE}\n" if part == "pulled" else says(attempt, part) for part in parts
    )


def without_seconds(log: str) -> str:
    """A deployment's log without how long pulling took."""
    return re.sub(r"^(Pulled \S+) in [0-9.]+ s$", r"\1", log, flags=re.MULTILINE)


@dataclass(frozen=True, slots=True)
class End:
    """What there is when all is over.

    `carried_out` is how often each thing began and ended. `told` is what the owner was sent, `results` how many of the
    agent's were stored. `left` is what lies about on the machine, `trees` how many builds' work trees there were
    whenever a checkout began.
    """

    log: str
    service_log: str
    carried_out: dict[str, int]
    told: tuple[tuple[str, str], ...]
    results: int = 1
    left: tuple[str, ...] = ()
    trees: frozenset[int] = frozenset()


@dataclass(slots=True)
class Scene:
    """One VM, its owner and the core. Victims are "gateway" and "agent"."""

    settings: Settings
    ledger: Ledger
    redis: Redis
    machine: Machine
    owner: WorkflowHandle[object, object]
    line: Line
    order: CommandOrder
    gateway_changes: dict[str, str] = field(default_factory=dict)
    _gateway: subprocess.Popen[bytes] | None = None
    _programs: ExitStack = field(default_factory=ExitStack)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scene]:
        """Everything but gateway and agent."""
        await self.ledger.add_vm(VM, self.owner.id)
        async with self.line.running(), self.machine.running():
            self.machine.core_port = self.line.port
            with self._programs:
                yield self

    async def start_gateway(self) -> None:
        listen = f"127.0.0.1:{self.line.gateway_port}"
        running = program(GATEWAY, self.settings, STAGELY_GATEWAY_LISTEN=listen, **self.gateway_changes)
        self._gateway = self._programs.enter_context(running)
        await answers(f"http://{listen}/healthz")

    async def replace_gateway(self) -> None:
        """Stop it as a deployment of ours would, and start the next."""
        assert self._gateway is not None
        self._gateway.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self._gateway.wait, DEADLINE_S) == 0
        await self.start_gateway()

    async def meet(self) -> None:
        """Gateway and agent run and know each other."""
        await self.start_gateway()
        self.machine.start()
        await self.are_talking(times=1)

    async def run_until(self, point: str) -> None:
        """The command is given and waits at this point, and the core has all that was said up to there."""
        self.machine.points.hold(point)
        await self.meet()
        await self.give(self.order)
        await self.machine.points.reached()
        await eventually(lambda: self._is_known(point))
        waiting = self.machine.points.waiting_pid
        assert not waiting or waiting in self.machine.programs(), "the program that came to the point has ended"

    async def give(self, order: CommandOrder) -> None:
        await self.ledger.add_command(order)
        await self.redis.publish(COMMAND_CHANNEL, VM)

    def kill(self, victims: Victims) -> None:
        if "gateway" in victims:
            assert self._gateway is not None
            assert self._gateway.poll() is None, "the gateway had ended before it was killed"
            self._gateway.kill()
            assert self._gateway.wait() == -signal.SIGKILL
        if "agent" in victims:
            self.machine.kill()

    async def restart(self, victims: Victims) -> None:
        """Start again whoever was killed, and return when they talk again."""
        welcomed = self.machine.times_welcomed()
        if "gateway" in victims:
            await self.start_gateway()
        if "agent" in victims:
            self.machine.start()
        self.line.is_open = True
        await self.are_talking(welcomed + 1)

    async def are_talking(self, times: int) -> None:
        async def claim() -> bool:
            return self.machine.times_welcomed() >= times

        await eventually(claim, REDIAL_S)

    async def end(self) -> End:
        """When the command was answered, and whatever else the agent had said until a later one has arrived, too."""
        await eventually(lambda: self.is_answered(self.order.command_id))
        last = CommandOrder("run-1/last", VM, "prepare", "env-1", "run-1")
        await self.give(last)
        await eventually(lambda: self.is_answered(last.command_id))
        stored = [kind for _, kind in await self.ledger.events(VM)]
        running = [f"step {name}" for name, _, state in await self.ledger.steps() if state == "running"]
        return End(
            log=await self._log(),
            service_log=await self._service_log(),
            carried_out=self.machine.carried_out(),
            told=tuple((event.command_id, event.outcome) for event in await self._told()),
            results=stored.count("result") - 1,
            left=(*self.machine.leftovers(), *map(str, self.machine.programs()), *running),
            trees=frozenset(len(found) for found in self.machine.found),
        )

    async def is_answered(self, command_id: str) -> bool:
        return await self.ledger.answered_at(command_id) is not None

    async def is_pushed(self) -> bool:
        return await self.ledger.sent_at(self.order.command_id) is not None

    async def is_result_stored(self) -> bool:
        return "result" in [kind for _, kind in await self.ledger.events(VM)]

    async def is_owner_told(self) -> bool:
        return bool(await self._told())

    async def _is_known(self, point: str) -> bool:
        kind = self.order.kind
        step = (_POINTS[kind][point][0], "api" if kind == "build" else "", "running")
        if step not in await self.ledger.steps() or await self._log() != attempt_says(kind, 1, point):
            return False
        return point != "health" or await self._service_log() == SERVICE_SAYS

    async def _told(self) -> list[AgentEvent]:
        return [event for event in await signals(self.owner) if event.kind == "result"]

    async def _log(self) -> str:
        """The command's stream, without the seconds that pulling took."""
        return without_seconds(await self._stream(_STREAM[self.order.kind]))

    async def _service_log(self) -> str:
        return await self._stream("service/api")

    async def _stream(self, name: str) -> str:
        chunks = await self.ledger.chunks(VM)
        return "".join(data.decode() for _, stream, data in chunks if stream == name)
