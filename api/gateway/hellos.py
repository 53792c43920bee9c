"""HELLOs, checked in batches: one statement lets any number of agents in (a restart brings thousands at once)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.frames import CloseCode

from agent.protocol import VERSION, Hello, ProtocolError, Welcome, negotiate
from api.clients import DATABASE_ERRORS
from api.gateway.session import Phase, Session
from api.gateway.sessions import Sessions
from api.gateway.websocket import REVOKED
from stagely.db.queries import agents
from stagely.db.queries.agents import CommandRow, EnrolledVm, Enrolment, TurnedAway
from stagely.logs import get_logger
from stagely.tokens import EnrolmentTokens, TokenRefused

WINDOW_S = 0.005  # gateway.md section 5: batches of 5 ms let 3,000 agents in per second instead of 1,450.
_PROOF = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Checked:
    """A HELLO whose form is good. `token_code` says why its token opens nothing ("" when it does)."""

    session: Session
    enrolment: Enrolment
    token_code: str


class Hellos:
    """`admitted` is told the VMs that were let in, after their WELCOME, or whose enrolment is disputed.

    And which of them have commands to get: nearly none of a herd, and each would be a question to Postgres.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tokens: EnrolmentTokens,
        sessions: Sessions,
        heartbeat_s: float,
        admitted: Callable[[list[str], set[str]], None],
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._sessions = sessions
        self._heartbeat_s = heartbeat_s
        self._admitted = admitted
        self._waiting: list[_Checked] = []
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """HELLOs that are in no batch yet."""
        return len(self._waiting)

    def put(self, session: Session, hello: Hello) -> None:
        """Check what needs no database; the rest happens in the next batch."""
        now = self._sessions.clock()
        try:
            session.version = negotiate(hello.version)
        except ProtocolError as error:
            # An agent that is ahead waits: a gateway that was rolled back must not power off everybody's previews.
            is_final = hello.version < VERSION
            session.refuse(error.code, str(error), CloseCode.POLICY_VIOLATION, now, final=is_final)
            return
        if not (_NAME.match(hello.agent_id) and _NAME.match(hello.boot_id) and _PROOF.match(hello.proof)):
            text = "agent_id and boot_id are names of at most 64 characters, proof is 64 hex digits"
            session.refuse("bad_hello", text, CloseCode.POLICY_VIOLATION, now)
        else:
            session.enter(Phase.CHECKING, now)
            self._waiting.append(self._check(session, hello))
            self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(WINDOW_S)
            await self._admit(self._next_batch())

    def _check(self, session: Session, hello: Hello) -> _Checked:
        code = ""
        try:
            if self._tokens.verify(hello.token, time.time()) != hello.agent_id:
                code = "token_of_another"
        except TokenRefused as error:
            code = error.code
        proof_sha256 = hashlib.sha256(hello.proof.encode()).hexdigest()
        return _Checked(session, Enrolment(hello.agent_id, proof_sha256, hello.boot_id, not code), code)

    def _next_batch(self) -> dict[str, _Checked]:
        """At most one HELLO per VM: the rows of one statement must not fight over one row of the ledger."""
        batch: dict[str, _Checked] = {}
        later: list[_Checked] = []
        for checked in self._waiting:
            if checked.enrolment.vm_id in batch:
                later.append(checked)
            elif checked.session.phase is Phase.CHECKING:
                batch[checked.enrolment.vm_id] = checked
        self._waiting = later
        if not later:
            self._arrived.clear()
        return batch

    async def _admit(self, batch: dict[str, _Checked]) -> None:
        if not batch:
            return
        try:
            inside, away = await agents.enrol(self._engine, [checked.enrolment for checked in batch.values()])
            rows = await agents.commands_of(self._engine, list(inside), only_open=False) if inside else []
            disputed = [vm_id for vm_id, turned in away.items() if _is_disputed(batch[vm_id], turned)]
            await agents.note_disputed(self._engine, disputed)
        except DATABASE_ERRORS as error:
            log.warning("HELLOs could not be checked", count=len(batch), error_code="database_away", reason=str(error))
            for checked in batch.values():
                self._turn_back(checked.session)
            return
        commands = _by_vm(rows)
        for vm_id, vm in inside.items():
            checked = batch[vm_id]
            checked.session.learn(commands.get(vm_id, []))
            self._welcome(checked.session, vm)
        for vm_id, turned in away.items():
            self._refuse(batch[vm_id], turned)
        for vm_id in disputed:
            self._end_disputed(vm_id)
        self._admitted([*inside, *disputed], {row.vm_id for row in rows if row.body is not None})

    def _welcome(self, session: Session, vm: EnrolledVm) -> None:
        if session.phase is not Phase.CHECKING:
            return  # The socket went away while the database was asked.
        self._sessions.open(session, vm)
        session.send(Welcome(self._heartbeat_s, vm.acked_seq, session.version))
        log.info("agent connected", vm_id=vm.vm_id, environment_id=vm.environment_id, role=vm.role, seq=vm.acked_seq)

    def _turn_back(self, session: Session) -> None:
        text = "the core cannot check this HELLO now; try again"
        session.refuse("unavailable", text, CloseCode.TRY_AGAIN_LATER, self._sessions.clock())

    def _refuse(self, checked: _Checked, turned: TurnedAway) -> None:
        code, text = _reason(checked, turned)
        session, now = checked.session, self._sessions.clock()
        log.warning(
            "agent refused", vm_id=turned.vm_id, peer=session.socket.peer, error_code=code, vm_state=turned.vm_state
        )
        if turned.vm_state:
            session.refuse(code, text, CloseCode.POLICY_VIOLATION, now, final=True)
        else:
            session.refuse(code, text, CloseCode.TRY_AGAIN_LATER, now)

    def _end_disputed(self, vm_id: str) -> None:
        """Two hold the token of one VM, and which of them is the VM's agent nobody can tell: neither is trusted."""
        log.error("enrolment is disputed, the VM counts as lost", vm_id=vm_id, error_code="enrolment_disputed")
        session = self._sessions.of(vm_id)
        if session is not None:
            text = f"another agent came with the token of {vm_id}"
            session.refuse("enrolment_disputed", text, REVOKED, self._sessions.clock(), final=True)


def _by_vm(rows: Iterable[CommandRow]) -> dict[str, list[CommandRow]]:
    found: dict[str, list[CommandRow]] = {}
    for row in rows:
        found.setdefault(row.vm_id, []).append(row)
    return found


def _is_disputed(checked: _Checked, turned: TurnedAway) -> bool:
    """Whether a stranger came with a valid token of a VM for which somebody else speaks already."""
    return turned.vm_state == "running" and turned.is_bound and not checked.token_code


def _reason(checked: _Checked, turned: TurnedAway) -> tuple[str, str]:
    if not turned.vm_state:
        # Not final: a database that is the wrong one, or lags, must not power off everybody's previews.
        return "vm_unknown", f"{turned.vm_id} is not in the ledger; try again"
    if turned.vm_state not in ("creating", "running"):
        return "vm_gone", f"{turned.vm_id} is no VM of ours any more"
    if turned.is_bound:
        return "proof_mismatch", f"another agent speaks for {turned.vm_id} already"
    return checked.token_code or "token_invalid", f"the token does not open {turned.vm_id}"
