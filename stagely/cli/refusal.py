"""Why a command ends without a result, and with which exit code."""

from __future__ import annotations

EXIT_READY = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_WAITS = 3  # For a person: nothing failed, and nothing goes on by itself.
EXIT_INTERRUPTED = 130


class CommandFailed(Exception):
    """The command could not be done; the text says what happened, with which value, and what to do."""

    exit_code = EXIT_FAILED


class NotAcceptable(CommandFailed):
    """What the person gave cannot be taken as it is: a path, a file, a number, a missing `stagely dev`."""

    exit_code = EXIT_REFUSED


class Refused(NotAcceptable):
    """The api's no: `code` is stable, `detail` its own words, the exception's text also says to what."""

    def __init__(self, text: str, code: str, detail: str) -> None:
        super().__init__(text)
        self.code = code
        self.detail = detail
