"""Times as Go programs write them. Pure."""

from __future__ import annotations

import re
from datetime import datetime

_STAMP = re.compile(r"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def unix_time(stamp: str) -> float:
    """RFC 3339 with any number of digits behind the point; 0 for "never" (Go's year 1) and for anything else."""
    parts = _STAMP.fullmatch(stamp)
    if parts is None or parts["whole"].startswith("0001"):
        return 0.0
    zone = "+00:00" if parts["zone"] == "Z" else parts["zone"]
    return datetime.fromisoformat(parts["whole"] + zone).timestamp() + float("0" + (parts["fraction"] or ""))


def duration_s(text: str) -> float:
    """ "1m30s" is 90. Raises ValueError for anything else than a Go duration."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 1m30s")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
