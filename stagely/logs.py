"""Structured logs of every process: an event is a short past-tense fact, everything variable is a key.

`json` writes one object per line to stderr with `timestamp`, `level`, `event`, `process` and the keys of the call;
`console` is for people. Records of libraries (uvicorn, temporalio, websockets) come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Logger = FilteringBoundLogger


def configure(log_format: str, process: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Set up logging of this process; again: the newer set-up stands. `process` names it: api, gateway, worker, ..."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _process_adder(process),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_renderers(log_format))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _quieten()


def get_logger(**keys: object) -> Logger:
    """A logger with `keys` in every event."""
    # cast: structlog types it as Any because the wrapper class is chosen at run time, in `configure`.
    return cast("Logger", structlog.get_logger(**keys))


def _renderers(log_format: str) -> list[Processor]:
    first: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "console":
        return [*first, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [*first, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _process_adder(process: str) -> Processor:
    def add(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    return add


def _quieten() -> None:
    """Libraries that tell every request or handshake at INFO; we say what matters ourselves."""
    for name in ("httpx", "httpcore", "websockets", "uvicorn.access", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
