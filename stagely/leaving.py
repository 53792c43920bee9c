"""How a process that held a Temporal worker runs and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Coroutine
from typing import NoReturn


def run_and_leave(main: Coroutine[None, None, int | None]) -> NoReturn:
    """Run `main` to its end and leave with the exit code that it gives (None: 0); 1, with a traceback, if it raised."""
    try:
        code = asyncio.run(main) or 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


def leave(code: int = 0) -> NoReturn:
    """End the process without the interpreter's own exit, which crashed now and then after a Temporal worker closed.

    Seen: exit codes 134 and 139. Only for the very end: nothing else of this process is cleaned up, `finally` and
    `atexit` do not run.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
