"""`python -m stagely.dev.database TOKEN_FILE`: migrate the database of STAGELY_DATABASE_URL and let the token in.

A program of its own: Alembic and SQLAlchemy would stay in the supervisor's memory for nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from stagely.db.bootstrap import ensure_local_team
from stagely.db.engine import create_engine
from stagely.db.migrate import upgrade
from stagely.settings import Settings


def main() -> None:
    """Again: nothing changes."""
    settings = Settings()
    upgrade(settings.database_url)
    asyncio.run(_bootstrap(settings.database_url, Path(sys.argv[1]).read_text().strip()))


async def _bootstrap(url: str, token: str) -> None:
    engine = create_engine(url)
    try:
        await ensure_local_team(engine, token)
    finally:
        await engine.dispose()


if __name__ == "__main__":
    main()
