"""What every connection of ours brings along."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine


async def test_connection_that_hangs_in_a_transaction_is_ended_by_the_server(engine: AsyncEngine) -> None:
    async with engine.connect() as db:
        idle = (await db.execute(text("SHOW idle_in_transaction_session_timeout"))).scalar_one()
        keepalive = (await db.execute(text("SHOW tcp_keepalives_idle"))).scalar_one()

    assert (idle, keepalive) == ("10s", "15")


async def test_error_does_not_quote_the_values_of_its_statement(engine: AsyncEngine) -> None:
    async with engine.connect() as db:
        with pytest.raises(DBAPIError) as caught:
            await db.execute(text("SELECT 1 / (length(CAST(:line AS text)) - 6)"), {"line": "secret"})

    assert "secret" not in str(caught.value)
