"""What the agent and the core owe each other, without I/O: states in, effects out.

    OFFLINE --connected()--> GREETING --Welcome--> ONLINE
       ^                        |                     |
       +-------- lost() --------+---------------------+
                                +--Refused(final)--> ENDED

Everything the agent says with a seq waits in the spool; `sent_seq` is how far this connection has come in it, so a
Welcome simply sets it back to what the core has stored. Commands are executed once: one that runs is left alone, one
that was answered is answered again with the Result it had.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.protocol import (
    VERSION,
    Ack,
    Build,
    Certify,
    Deploy,
    Hello,
    Mask,
    Prepare,
    Refused,
    Result,
    Shutdown,
    Stop,
    ToAgent,
    Welcome,
)


class Phase(enum.StrEnum):
    OFFLINE = "offline"
    GREETING = "greeting"
    ONLINE = "online"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The connection may be used: beat every `heartbeat_s` and send the spool from `sent_seq` on."""

    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Execute:
    command: Build | Deploy | Prepare


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the command `target_id` if it runs, then answer the Stop itself with success."""

    stop_id: str
    target_id: str


@dataclass(frozen=True, slots=True)
class Install:
    """Serve with this certificate from now on and answer. Twice does no harm."""

    command: Certify


@dataclass(frozen=True, slots=True)
class AnswerAgain:
    """The core has not seen this Result, or has forgotten it: say it once more with a new seq."""

    result: Result


@dataclass(frozen=True, slots=True)
class Forget:
    """The spool may drop everything up to this seq."""

    seq: int


@dataclass(frozen=True, slots=True)
class Hide:
    values: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PowerOff:
    """`command_id` is "" when no command asked for it."""

    reason: str
    command_id: str = ""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close this connection and try again later."""

    reason: str


Effect = Welcomed | Execute | Cancel | Install | AnswerAgain | Forget | Hide | PowerOff | Reconnect


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks. `token` is shown as long as there is no session to show."""

    agent_id: str
    boot_id: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a Hello shows: the agent's public key (hex), the session that the core let it in with last ("" before the
    first Welcome), and the one that the next Welcome puts in its place.
    """

    public_key: str
    session: str = field(repr=False)
    next_session: str = field(repr=False)


class Session:
    """The agent's end of the protocol. `results` are the answers of earlier commands, kept by the caller."""

    def __init__(self, identity: Identity, results: Mapping[str, Result], acked_seq: int) -> None:
        self.phase = Phase.OFFLINE
        self.sent_seq = acked_seq
        self.version = VERSION  # What the last Welcome named.
        self._identity = identity
        self._results = results
        self._acked_seq = acked_seq
        self._running: set[str] = set()
        self._answered_at: dict[str, int] = {}

    def connected(self, shown: Credential) -> Hello:
        """The first frame of a new connection, to be signed."""
        self.phase = Phase.GREETING
        me = self._identity
        token = "" if shown.session else me.token
        return Hello(me.agent_id, shown.public_key, "", me.boot_id, shown.session, shown.next_session, token)

    def lost(self) -> None:
        if self.phase is not Phase.ENDED:
            self.phase = Phase.OFFLINE

    def sent(self, seq: int) -> None:
        """The spool's record `seq` went out on this connection."""
        self.sent_seq = max(self.sent_seq, seq)

    def finished(self, command_id: str, seq: int) -> None:
        """The command's Result is in the spool under this seq."""
        self._running.discard(command_id)
        self._answered_at[command_id] = seq

    def received(self, message: ToAgent) -> tuple[Effect, ...]:
        """What to do now, in this order."""
        match message:
            case Welcome():
                return self._welcomed(message)
            case Refused():
                return self._refused(message)
            case Ack(seq=seq):
                return self._acked(seq)
            case Mask(values=values):
                return (Hide(values),)
            case Shutdown():
                return (PowerOff(message.reason, message.command_id),)
            case Stop():
                return self._once(message, Cancel(message.command_id, message.target_id))
            case Certify():
                return self._once(message, Install(message))
            case Build() | Deploy() | Prepare():
                return self._command(message)

    def _welcomed(self, welcome: Welcome) -> tuple[Effect, ...]:
        if welcome.version not in (VERSION, VERSION - 1):
            return (Reconnect(f"the core speaks version {welcome.version} of the protocol, this agent {VERSION}"),)
        if self.phase is not Phase.GREETING:
            return (Reconnect("the core said WELCOME to no HELLO"),)  # Each one renews the session: it counts once.
        self.version = welcome.version
        self.phase = Phase.ONLINE
        # The core says what it has of this boot_id. It may have lost what it had confirmed; that is gone here, too.
        self.sent_seq = max(welcome.acked_seq, self._acked_seq)
        return (*self._acked(welcome.acked_seq), Welcomed(welcome.heartbeat_s))

    def _refused(self, refused: Refused) -> tuple[Effect, ...]:
        reason = f"the core refused this agent: {refused.message} ({refused.code})"
        if refused.final:
            self.phase = Phase.ENDED
            return (PowerOff(reason),)
        return (Reconnect(reason),)

    def _acked(self, seq: int) -> tuple[Effect, ...]:
        if seq <= self._acked_seq:
            return ()
        self._acked_seq = seq
        return (Forget(seq),)

    def _once(self, command: Stop | Certify, effect: Effect) -> tuple[Effect, ...]:
        """Of a command that is answered as soon as it is taken up."""
        if command.command_id in self._results:
            return self._again(command.command_id)
        return (effect,)

    def _command(self, command: Build | Deploy | Prepare) -> tuple[Effect, ...]:
        if command.command_id in self._running:
            return ()
        if command.command_id in self._results:
            return self._again(command.command_id)
        self._running.add(command.command_id)
        return (Execute(command),)

    def _again(self, command_id: str) -> tuple[Effect, ...]:
        if self._answered_at.get(command_id, 0) > self._acked_seq:
            return ()  # The answer is in the spool and will be sent anyway.
        return (AnswerAgain(self._results[command_id]),)
