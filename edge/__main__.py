"""`python -m edge`: settings from the environment, one uvloop per process, SIGTERM and SIGINT drain."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys

import uvloop

from edge.config import BadSetting, Settings, read_settings
from edge.log import Log
from edge.proxy import Edge
from edge.workers import EXIT_CANNOT_SERVE, supervise


def main() -> int:
    """Exit code 0 after a drain, 2 when a setting or an address cannot be used."""
    log = Log()
    try:
        settings = read_settings(os.environ)
    except BadSetting as bad:
        log.error("setting refused", error=str(bad), error_code="bad_setting")
        return 2
    _allow_connections()
    if settings.workers == 1:
        return _serve(settings, log)
    try:
        return supervise(settings, log, lambda share: _serve(share, log))
    except OSError as error:
        return _cannot_listen(log, error)


def _serve(settings: Settings, log: Log) -> int:
    """One process, until it is told to stop."""
    exit_code = 0
    try:
        uvloop.run(_run(settings, log))
    except* OSError as problem:
        exit_code = _cannot_listen(log, problem.exceptions[0])
    return exit_code


def _cannot_listen(log: Log, error: BaseException) -> int:
    log.error(
        "edge cannot listen",
        error=str(error),
        error_code="listen_failed",
        remedy="free the address or set STAGELY_EDGE_LISTEN",
    )
    return EXIT_CANNOT_SERVE


async def _run(settings: Settings, log: Log) -> None:
    edge = Edge(settings, log)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _report(log, context))
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, edge.stop)
    gc.collect()
    gc.freeze()  # What was imported lives for ever; the collector need not look at it again under load.
    await edge.run()
    log.info("edge stopped")


def _allow_connections() -> None:
    """Two descriptors per visitor: take all that the system grants without asking."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _report(log: Log, context: dict[str, object]) -> None:
    error = context.get("exception")
    log.error("unexpected error", error=f"{type(error).__name__}: {error}", message=str(context.get("message")))


if __name__ == "__main__":
    sys.exit(main())
