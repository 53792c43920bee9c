"""Only the strict decode stands between one bad message and everybody: what it lets through stays its sender's."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import Log, encode
from api.gateway.inbox import Received
from tests.agent.test_protocol_inbox import STORED_WITHIN_S, a_crowd, receive


async def test_a_message_that_nobody_foresaw_fails_only_its_sender(engine: AsyncEngine) -> None:
    async with a_crowd(engine, seed=1) as crowd:
        bad, good = crowd.hostile[0], crowd.good[0]
        message = Log(1, "", "deploy", "\ud800")  # Stands for whatever the decode may let through one day.
        assert bad.session.take(message, 1)

        crowd.inbox.put(Received(bad.session, message, 1))
        receive(crowd.inbox, good.session, encode(Log(1, "", "deploy", "fine\n")).encode())
        async with asyncio.timeout(STORED_WITHIN_S):
            await crowd.inbox.idle.wait()

    assert (bad.session.acked_seq, good.session.acked_seq) == (0, 1)
