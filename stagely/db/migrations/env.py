"""Alembic's entry: runs the migrations on an async engine, in a thread's own event loop."""

from __future__ import annotations

import asyncio

import sqlmodel
from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from stagely.db import models  # noqa: F401  # Importing registers the tables.


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=sqlmodel.SQLModel.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def _main() -> None:
    engine = create_async_engine(context.config.attributes["url"])
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


asyncio.run(_main())
