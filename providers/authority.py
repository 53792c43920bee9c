"""What a certificate authority promises: an order, and later the certificate for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stagely.txt import TxtRecord


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """`url` names the order at its authority. `records`: what it wants to see in the DNS first; none when it has."""

    url: str
    records: tuple[TxtRecord, ...] = ()


class Authority(Protocol):
    """One account at one certificate authority. All methods raise only providers.errors."""

    async def place(self, names: Sequence[str], key: bytes) -> PlacedOrder:
        """Order a certificate for these names and this private key (PEM).

        Again: another order, unless the authority gives back the one that is still open.

        Raises:
            AuthorityRefused: retrying will not help.
            AuthorityBusy: a rate limit or an outage; try again when it says.
        """
        ...

    async def finish(self, url: str, names: Sequence[str], key: bytes) -> str:
        """Have the records checked and the certificate made; gives its chain as PEM, its own certificate first.

        Again, at any point: goes on from there, and gives the same certificate. Raises as `place`; an order whose
        check failed stays refused.
        """
        ...
