"""One look after the installation's certificate: how it starts, what its activities give, what it ends with.

The rules of messages.py hold: frozen dataclasses, no secrets, fields only ever added, with defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from stagely.txt import TxtRecord


@dataclass(frozen=True, slots=True)
class CertificateInput:
    """Start of a CertificateWorkflow. The certificate is for `domain` and for every name one label below it."""

    domain: str


@dataclass(frozen=True, slots=True)
class CertificateState:
    """What is in the folder. Times are Unix seconds, 0 when there is no certificate.

    `has_leftovers`: TXT values of a run that was stopped are in the DNS still, or may be.
    """

    expires_at: float = 0.0
    renew_at: float = 0.0
    is_due: bool = False
    has_leftovers: bool = False


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """An order at the authority, which its `url` names. `records`: what it wants to see in the DNS first."""

    domain: str
    url: str
    records: tuple[TxtRecord, ...] = ()
