"""Schema migrations, run in process (Alembic's start alone costs two seconds as a program)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from stagely.db.engine import async_url

_FOLDER = Path(__file__).parent / "migrations"


def config(url: str) -> Config:
    """Alembic's configuration for the database at `url`."""
    found = Config()
    found.set_main_option("script_location", str(_FOLDER))
    found.attributes["url"] = async_url(url)
    return found


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to `revision`. There already: nothing happens. Blocks: a running loop uses a thread."""
    command.upgrade(config(url), revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take migrations back down to `revision`."""
    command.downgrade(config(url), revision)
