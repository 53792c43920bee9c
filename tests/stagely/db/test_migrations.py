"""What the migrations make is what the models say."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from stagely.db import models


def differences(connection: Connection) -> list[object]:
    assert models.Environment.metadata is SQLModel.metadata
    return list(compare_metadata(MigrationContext.configure(connection), SQLModel.metadata))


async def test_a_migrated_database_is_what_the_models_say(engine: AsyncEngine) -> None:
    async with engine.connect() as db:
        assert await db.run_sync(differences) == []
