"""Postgres refuses to run as root; as root it runs in a user namespace of its own, where the host allows that."""

from __future__ import annotations

import asyncio
import os

from stagely.dev.postgres import AS_ORDINARY_USER
from stagely.dev.refusal import Refused

TRY_TIMEOUT_S = 10.0


async def refuse_root_without_namespaces(external: frozenset[str]) -> None:
    """Raises Refused when we are root, the kernel gives no user namespace, and Postgres is to be ours."""
    if os.geteuid() != 0 or "postgres" in external:
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *AS_ORDINARY_USER, "true", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(TRY_TIMEOUT_S):
            if await process.wait() == 0:
                return
    except (FileNotFoundError, TimeoutError):
        pass  # No unshare command, or one that hangs: the same remedy.
    raise Refused(
        "Postgres does not run as root, and this kernel gives root no user namespace (unshare --user failed). "
        "Run stagely dev as an ordinary user of the group docker, allow namespaces "
        "(sysctl user.max_user_namespaces=1000), or name a database: STAGELY_DATABASE_URL"
    )
