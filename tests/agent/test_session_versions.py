from __future__ import annotations

from agent.protocol import VERSION, Welcome
from agent.session import Credential, Identity, Reconnect, Session


def test_a_welcome_in_a_version_that_this_agent_does_not_speak_ends_the_connection() -> None:
    session = Session(Identity("vm-1", "boot-1", "t"), {}, 0)
    session.connected(Credential("k", "", "s1"))

    effects = session.received(Welcome(30.0, 0, version=VERSION + 1))

    assert [type(effect) for effect in effects] == [Reconnect]
