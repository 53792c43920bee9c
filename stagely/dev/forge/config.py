"""What one forge is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

OWNER = "local"  # Every repository belongs to this account; it is also the person who holds the admin token.


@dataclass(frozen=True, slots=True)
class ForgeConfig:
    """`folder` holds everything that must survive; `app_public_key` is PEM.

    `url` is where people reach the forge, `clone_url` where git in VMs does. `webhook_url` "" keeps webhooks unsent.
    """

    folder: Path
    url: str
    clone_url: str
    webhook_url: str
    app_id: int
    app_public_key: str
    admin_token: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    token_ttl_s: float = 3600.0  # GitHub docs: an installation token lives one hour.
    webhook_timeout_s: float = 10.0  # GitHub docs: a webhook that is not answered within 10 s has failed.
