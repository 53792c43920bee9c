"""The Retry-After header. Pure."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

LONGEST_S = 7 * 86400.0  # Let's Encrypt counts over a week at most; who says more would stop us for good.


def seconds_of(header: str | None, now: float | None = None) -> float | None:
    """How long to wait from `now` (Unix seconds; None: the clock); None when it is not said, or not to be understood.

    At most LONGEST_S: then it is asked again.

    Source: RFC 9110 section 10.2.3: seconds, or a date.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), LONGEST_S)
    try:
        at = parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at - (time.time() if now is None else now)), LONGEST_S)
