"""Ids: distinct types, minted in one place, safe in DNS names, paths and image references."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NewType

TeamId = NewType("TeamId", str)
ProjectId = NewType("ProjectId", str)
EnvironmentId = NewType("EnvironmentId", str)
RunId = NewType("RunId", str)
BuildId = NewType("BuildId", str)
VmId = NewType("VmId", str)
CommandId = NewType("CommandId", str)

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"  # DNS names have no case and no "_": ../docs/adr names the departure.
HASH_LENGTH = 21  # NanoID's length: 36**21 is above 108 bits, unguessable.


def mint(prefix: str, length: int = 12, choice: Callable[[str], str] = secrets.choice) -> str:
    """`{prefix}-{length random characters}`. In workflows pass `workflow.random().choice`: ids must replay."""
    return f"{prefix}-" + "".join(choice(ALPHABET) for _ in range(length))


def subdomain_hash() -> str:
    """The unguessable label of one environment, 21 characters of 0-9a-z, never used again."""
    return "".join(secrets.choice(ALPHABET) for _ in range(HASH_LENGTH))
