"""Why a command ends without a result, and with which exit code."""

from __future__ import annotations

EXIT_READY = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


class CommandFailed(Exception):
    """The command could not be done; the text says what happened, with which value, and what to do."""

    exit_code = EXIT_FAILED


class NotAcceptable(CommandFailed):
    """What the person gave cannot be taken as it is: a path, a file, a number, a missing `stagely dev`."""

    exit_code = EXIT_REFUSED
