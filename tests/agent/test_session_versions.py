from __future__ import annotations

from agent.protocol import VERSION, Welcome
from agent.session import Identity, Reconnect, Session


def test_a_welcome_in_a_version_that_this_agent_does_not_speak_ends_the_connection() -> None:
    session = Session(Identity("vm-1", "p", "boot-1", "t"), {}, 0, is_enrolled=False)
    session.connected()

    effects = session.received(Welcome(30.0, 0, version=VERSION + 1))

    assert [type(effect) for effect in effects] == [Reconnect]
