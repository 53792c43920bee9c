"""A TXT record, as workflows, activities and DNS providers pass it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TxtRecord:
    """One TXT value in the public DNS. `name` is fully qualified, lower case and without a dot at its end."""

    name: str
    value: str
