"""Names on a bench's command line, divided by commas. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def choices(kind: str, known: Collection[str]) -> Callable[[str], list[str]]:
    """For `type=` of an argument; `kind` is what error messages call one of them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {kind} {unknown[0]!r}: choose from {', '.join(known)}")
        return names

    return parse
