"""Why a session's socket is not read, and when it is read again."""

from __future__ import annotations

from agent.protocol import Log
from api.gateway.session import UNSTORED_LIMIT_BYTES, Session
from api.gateway.turns import Turns
from api.gateway.websocket import FULL, LEAVING, AgentSocket
from stagely.db.queries.agents import EnrolledVm
from tests.api.rfc6455.stand_in import Echo

VM = EnrolledVm("vm-1", "local", "prj-1", "env-1", "run-1", "builder", "vm/vm-1", "local/guestbook", "boot-1", 0)
LINE = Log(1, "", "deploy", "x\n")


def a_session() -> Session:
    session = Session(AgentSocket(Echo(), Turns()), 0.0)
    session.open(VM, 0.0)
    return session


def test_agent_that_sent_much_is_read_again_when_it_is_stored() -> None:
    session = a_session()

    session.take(LINE, UNSTORED_LIMIT_BYTES + 1)
    was_paused = session.socket.is_paused_for(FULL)
    session.note_stored(LINE, UNSTORED_LIMIT_BYTES + 1, needs_owner=False)

    assert was_paused
    assert not session.socket.is_paused_for(FULL)


def test_gateway_that_ends_reads_nothing_more_whatever_is_stored_meanwhile() -> None:
    session = a_session()
    session.take(LINE, UNSTORED_LIMIT_BYTES + 1)

    session.socket.pause(LEAVING)
    session.note_stored(LINE, UNSTORED_LIMIT_BYTES + 1, needs_owner=False)

    assert session.socket.is_paused_for(LEAVING)
