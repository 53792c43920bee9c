"""What `stagely dev` says when it cannot start: one sentence with the value, and what to do."""

from __future__ import annotations

EXIT_REFUSED = 2


class Refused(Exception):
    """A start that cannot work as things are; the text is for the person at the terminal. Retrying will not help."""


class StartFailed(Exception):
    """A part that did not come up although nothing forbade it; the text names the part, its log and its last lines."""
