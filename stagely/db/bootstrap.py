"""The first rows of a new installation."""

from __future__ import annotations

import hashlib

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.db.models import ApiToken, Team, utc_now
from stagely.ids import mint

LOCAL_TEAM = "team-local"


def token_digest(token: str) -> str:
    """What the database keeps of an API token: its SHA-256 in hex (tokens are random, so no slow hash is needed)."""
    return hashlib.sha256(token.encode()).hexdigest()


async def ensure_local_team(engine: AsyncEngine, token: str) -> None:
    """Make the team `local` and let `token` in. Again: nothing changes."""
    async with engine.begin() as connection:
        await connection.execute(
            insert(Team)
            .values(id=LOCAL_TEAM, slug="local", name="Local", created_at=utc_now())
            .on_conflict_do_nothing()
        )
        await connection.execute(
            insert(ApiToken)
            .values(
                id=mint("tok"), team_id=LOCAL_TEAM, name="local", token_sha256=token_digest(token), created_at=utc_now()
            )
            .on_conflict_do_nothing()
        )
