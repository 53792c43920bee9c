"""HELLOs, checked in batches: one statement lets any number of agents in (a restart brings thousands at once)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.frames import CloseCode

from agent.protocol import (
    VERSION,
    WELCOME_TIMEOUT_S,
    Hello,
    ProtocolError,
    Welcome,
    negotiate,
    signed_bytes,
)
from api.clients import DATABASE_ERRORS
from api.gateway.session import Phase, Session
from api.gateway.sessions import Sessions
from api.gateway.websocket import REVOKED
from stagely.db.queries import agents, enrolment
from stagely.db.queries.agents import CommandRow, EnrolledVm
from stagely.db.queries.enrolment import Enrolment, TurnedAway
from stagely.logs import get_logger
from stagely.tokens import EnrolmentTokens, TokenRefused

WINDOW_S = 0.005  # gateway.md section 5: batches of 5 ms let 3,000 agents in per second instead of 1,450.
_SECRET = re.compile(r"[0-9a-f]{64}\Z")  # Also the form of a public key.
_SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")
WAITING_OF_ONE = 64  # HELLOs of one VM; its agent says one at a time.
_NAME = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Checked:
    """A HELLO of good form, signed by its key. `token_code` says why its token opens nothing ("" when it does)."""

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
        self._waiting: dict[str, list[_Checked]] = {}
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """VMs whose HELLOs are in no batch yet: one that dials again and again makes no crowd."""
        return len(self._waiting)

    def put(self, session: Session, hello: Hello) -> None:
        """Check what needs no database; the rest happens in the next batch."""
        now = self._sessions.clock()
        nonce, session.socket.nonce = session.socket.nonce, ""
        try:
            session.version = negotiate(hello.version)
        except ProtocolError as error:
            # An agent that is ahead waits: a gateway that was rolled back must not power off everybody's previews.
            is_final = hello.version < VERSION
            session.refuse(error.code, str(error), CloseCode.POLICY_VIOLATION, now, final=is_final)
            return
        if not _has_good_form(hello):
            session.refuse("bad_hello", _GOOD_FORM, CloseCode.POLICY_VIOLATION, now)
        elif not _is_signed(hello, nonce):
            log.warning("agent refused", vm_id=hello.agent_id, peer=session.socket.peer, error_code="bad_signature")
            text = "the signature is not by public_key over this HELLO and this connection's nonce"
            session.refuse("bad_signature", text, CloseCode.POLICY_VIOLATION, now)
        else:
            self._queue(session, hello)

    def _queue(self, session: Session, hello: Hello) -> None:
        queue = self._waiting.setdefault(hello.agent_id, [])
        if len(queue) >= WAITING_OF_ONE:
            self._turn_back(session)
            return
        session.enter(Phase.CHECKING, self._sessions.clock())
        queue.append(self._check(session, hello))
        self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(WINDOW_S)
            await self._admit(self._next_batch())

    def _check(self, session: Session, hello: Hello) -> _Checked:
        code = self._token_code(hello)
        shown, announced = _digest(hello.session), _digest(hello.next_session)
        asks = Enrolment(hello.agent_id, hello.public_key, shown, announced, hello.boot_id, not code)
        return _Checked(session, asks, code)

    def _token_code(self, hello: Hello) -> str:
        """Why the token opens nothing. Without one, as all but the first HELLOs come, there is nothing to check."""
        if not hello.token:
            return "token_invalid"
        try:
            return "" if self._tokens.verify(hello.token, time.time()) == hello.agent_id else "token_of_another"
        except TokenRefused as error:
            return error.code

    def _next_batch(self) -> dict[str, _Checked]:
        """At most one HELLO per VM: the rows of one statement must not fight over one row of the ledger."""
        batch: dict[str, _Checked] = {}
        for vm_id, queue in list(self._waiting.items()):
            queue[:] = [checked for checked in queue if checked.session.phase is Phase.CHECKING]
            if queue:
                batch[vm_id] = queue.pop(0)
            if not queue:
                del self._waiting[vm_id]
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _admit(self, batch: dict[str, _Checked]) -> None:
        if not batch:
            return
        try:
            inside, away = await enrolment.enrol(self._engine, [checked.enrolment for checked in batch.values()])
            rows = await agents.commands_of(self._engine, list(inside), only_open=False) if inside else []
            disputes = {vm_id: self._dispute(batch[vm_id], turned) for vm_id, turned in away.items()}
            disputed = {vm_id: code for vm_id, code in disputes.items() if code}
            await enrolment.note_disputed(self._engine, list(disputed))
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
        for vm_id, code in disputed.items():
            self._end_disputed(vm_id, code)
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
        if code == "session_mismatch" and self._is_given_up(session):
            self._turn_back(session)
            return
        log.warning(
            "agent refused", vm_id=turned.vm_id, peer=session.socket.peer, error_code=code, vm_state=turned.vm_state
        )
        if turned.vm_state:
            session.refuse(code, text, CloseCode.POLICY_VIOLATION, now, final=True)
        else:
            session.refuse(code, text, CloseCode.TRY_AGAIN_LATER, now)

    def _dispute(self, checked: _Checked, turned: TurnedAway) -> str:
        """Whether somebody else speaks for the VM already: the code of that, or ""."""
        if turned.vm_state != "running" or not turned.public_key:
            return ""
        if turned.public_key != checked.enrolment.public_key:
            return "" if checked.token_code else "enrolment_disputed"
        return "" if self._is_given_up(checked.session) else "session_disputed"

    def _is_given_up(self, session: Session) -> bool:
        """Such a HELLO is no stranger's: while it waited, its agent came anew and was let in elsewhere."""
        return session.phase is not Phase.CHECKING or self._sessions.clock() - session.phase_since >= WELCOME_TIMEOUT_S

    def _end_disputed(self, vm_id: str, code: str) -> None:
        """Two hold what is one VM's alone, and which of them is its agent nobody can tell: neither is trusted."""
        log.error("two speak for one VM, it counts as lost", vm_id=vm_id, error_code=code)
        session = self._sessions.of(vm_id)
        if session is not None:
            session.refuse(code, _DISPUTES[code].format(vm_id), REVOKED, self._sessions.clock(), final=True)


_GOOD_FORM = (
    "agent_id and boot_id are names of at most 64 characters, public_key, session and next_session 64 hex digits "
    '(session may be "", and is not next_session), signature is 128'
)
_DISPUTES = {
    "enrolment_disputed": "another agent came with the token of {}",
    "session_disputed": "another agent came with the key of {}, which has been copied",
}


def _has_good_form(hello: Hello) -> bool:
    return bool(
        _NAME.match(hello.agent_id)
        and _NAME.match(hello.boot_id)
        and _SECRET.match(hello.public_key)
        and _SIGNATURE.match(hello.signature)
        and (not hello.session or _SECRET.match(hello.session))
        and _SECRET.match(hello.next_session)
        and hello.session != hello.next_session
    )


def _is_signed(hello: Hello, nonce: str) -> bool:
    """Whether the holder of `hello.public_key` said this, on the connection that was given `nonce`."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(hello.public_key))
        key.verify(bytes.fromhex(hello.signature), signed_bytes(hello, nonce))
    except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point of the curve.
        return False
    return True


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def _by_vm(rows: Iterable[CommandRow]) -> dict[str, list[CommandRow]]:
    found: dict[str, list[CommandRow]] = {}
    for row in rows:
        found.setdefault(row.vm_id, []).append(row)
    return found


def _reason(checked: _Checked, turned: TurnedAway) -> tuple[str, str]:
    if not turned.vm_state:
        # Not final: a database that is the wrong one, or lags, must not power off everybody's previews.
        return "vm_unknown", f"{turned.vm_id} is not in the ledger; try again"
    if turned.vm_state not in ("creating", "running"):
        return "vm_gone", f"{turned.vm_id} is no VM of ours any more"
    if turned.public_key == checked.enrolment.public_key:
        return "session_mismatch", f"this is not the newest session of {turned.vm_id}: its key has been copied"
    if turned.public_key:
        return "key_mismatch", f"another agent speaks for {turned.vm_id} already"
    return checked.token_code or "token_invalid", f"the token does not open {turned.vm_id}"
