"""`python -m api.gateway`: the agents' side of the control plane."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time

import uvloop

from api.clients import connect_redis
from api.gateway.server import Gateway
from stagely import temporal
from stagely.db.engine import create_engine
from stagely.github import GitHub
from stagely.logs import configure, get_logger
from stagely.settings import Settings
from stagely.tokens import EnrolmentTokens

log = get_logger()


async def serve(settings: Settings) -> None:
    """Run one gateway until SIGTERM or SIGINT."""
    engine = create_engine(settings.database_url, pings=False)
    redis = connect_redis(settings)
    client = await temporal.connect(settings)
    enrolment = EnrolmentTokens(settings.secret(settings.signing_key_file, "signing_key_file"))
    github = GitHub(settings)
    gateway = Gateway(settings, engine, redis, client, enrolment, github, time.monotonic)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, gateway.stop)
    gc.freeze()  # What is there now stays; the collector need not look at it with every sweep.
    try:
        await gateway.run()
    finally:
        await github.aclose()
        await redis.aclose()
        await engine.dispose()


def main() -> int:
    settings = Settings()
    configure(settings.log_format, "gateway")
    try:
        uvloop.run(serve(settings))
    except (RuntimeError, ValueError) as error:
        log.error("gateway could not start", reason=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
