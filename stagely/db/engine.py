"""The one way to Postgres: an async engine with bounded waits."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CONNECT_TIMEOUT_S = 5.0  # A database that does not answer by then is away; callers retry or say so.
COMMAND_TIMEOUT_S = 30.0  # The longest query is a page of logs: milliseconds.
_SERVER_SETTINGS = {
    # A process that hangs or vanished inside a transaction must not hold its locks: ours last milliseconds.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
POOL_SIZE = 10  # Architecture: 200 connections for all processes together.


def async_url(url: str) -> URL:
    """`postgresql://...` as the URL of the asyncpg driver."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def create_engine(url: str, *, pings: bool = True) -> AsyncEngine:
    """An engine for `postgresql://user:password@host:port/name`. Connects on first use; close it with `dispose()`.

    `pings`: each use first asks whether its connection still lives. Without, the first use after a restart of the
    database fails: for a process that tries everything again anyway and asks often.
    """
    return create_async_engine(
        async_url(url),
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_pre_ping=pings,
        hide_parameters=True,  # What people build and log is no business of our error logs.
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": COMMAND_TIMEOUT_S,
            "server_settings": _SERVER_SETTINGS,
        },
    )
