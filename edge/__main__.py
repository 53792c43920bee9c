"""`python -m edge`: settings from the environment, one uvloop per process, SIGTERM and SIGINT drain."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import ssl
import sys

import uvloop

from edge.config import BadSetting, Settings, help_text, read_settings
from edge.log import Log
from edge.proxy import Edge
from edge.tls import Certificate
from edge.trust import VmTrust
from edge.workers import EXIT_CANNOT_SERVE, supervise


def main() -> int:
    """Exit code 0 after a drain, 2 when a setting or an address cannot be used."""
    if set(sys.argv[1:]) & {"-h", "--help"}:
        print(help_text())
        return 0
    log = Log()
    try:
        settings = read_settings(os.environ)
    except BadSetting as bad:
        log.error("setting refused", error=str(bad), error_code="bad_setting")
        return 2
    if not _has_certificates(settings, log):
        return 2
    _allow_connections()
    if settings.workers == 1:
        return _serve(settings, log)
    try:
        return supervise(settings, log, lambda share: _serve(share, log))
    except OSError as error:
        return _cannot_listen(log, error)


def _has_certificates(settings: Settings, log: Log) -> bool:
    """Asked before anything starts: the worker that replaces another may find the files being renewed, and waits."""
    event = "certificate refused"
    try:
        if settings.tls_listen:
            Certificate(settings.certificate, settings.key, log)
        event = "vm ca refused"
        if settings.vm_ca is not None:
            VmTrust(settings.vm_ca, log)
    except (OSError, ssl.SSLError) as problem:
        log.error(event, error=f"{type(problem).__name__}: {problem}", error_code="bad_certificate")
        return False
    return True


def _serve(settings: Settings, log: Log) -> int:
    """One process, until it is told to stop."""
    edge = Edge(settings, log)  # Outside: a certificate that cannot be read for now is no reason to end all workers.
    exit_code = 0
    try:
        uvloop.run(_run(edge, log))
    except* OSError as problem:
        exit_code = _cannot_listen(log, problem.exceptions[0])
    return exit_code


def _cannot_listen(log: Log, error: BaseException) -> int:
    log.error(
        "edge cannot listen",
        error=str(error),
        error_code="listen_failed",
        remedy="free the address or set another in STAGELY_EDGE_LISTEN, _TLS_LISTEN or _METRICS_LISTEN",
    )
    return EXIT_CANNOT_SERVE


async def _run(edge: Edge, log: Log) -> None:
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
