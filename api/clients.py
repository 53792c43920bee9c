"""Connections to Postgres and Redis as the api and the gateway make them, and what it looks like when one is away."""

from __future__ import annotations

import asyncpg
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from temporalio.service import RPCError, RPCStatusCode

from stagely.settings import Settings

REDIS_TIMEOUT_S = 2.0  # Redis answers in a millisecond; nothing of ours is worth a longer wait for it.
REDIS_CONNECTIONS = 50
_AWAY_SQLSTATES = (
    "08",  # connection exception
    "53",  # insufficient resources
    "57",  # operator intervention (shutdown)
    "25006",  # read-only: a standby, or a primary that is being replaced
    "25P03",  # idle in transaction for too long
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
)

_NAMESPACE_MISSING = "NamespaceNotFoundFailure"

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""Everything a statement may raise that is not our bug (a time-out is an OSError)."""
REDIS_ERRORS = (RedisError, OSError)
TEMPORAL_ERRORS = (RPCError, RuntimeError, OSError)
"""A lazy client raises RuntimeError when it cannot connect."""


def connect_redis(settings: Settings) -> Redis:
    """A client that answers with text; connects on first use. Close it with `aclose()`."""
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        decode_responses=True,
        max_connections=REDIS_CONNECTIONS,
        timeout=REDIS_TIMEOUT_S,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
    )
    return Redis(connection_pool=pool)


def is_database_away(error: BaseException) -> bool:
    """Whether trying the same statement again later may help; False means the database refused these very values."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _sqlstate(error.orig).startswith(_AWAY_SQLSTATES)
    return not isinstance(error, asyncpg.PostgresError) or _sqlstate(error).startswith(_AWAY_SQLSTATES)


def is_unknown_workflow(error: BaseException) -> bool:
    """No such run. A namespace that is not there yet (a server that just started) has the same status code."""
    if not isinstance(error, RPCError) or error.status is not RPCStatusCode.NOT_FOUND:
        return False
    return not any(detail.type_url.endswith(_NAMESPACE_MISSING) for detail in error.grpc_status.details)


def _sqlstate(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", "") or "")
