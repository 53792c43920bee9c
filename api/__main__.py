"""`python -m api`: webhooks, people and the CLI."""

from __future__ import annotations

import sys

import uvloop

from api.server import serve
from stagely.logs import configure, get_logger
from stagely.settings import Settings

log = get_logger()


def main() -> int:
    settings = Settings()
    configure(settings.log_format, "api")
    try:
        uvloop.run(serve(settings))
    except RuntimeError as error:
        log.error("api could not start", reason=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
