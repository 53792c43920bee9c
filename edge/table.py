"""The route table: which label leads where, kept in process and kept true by the feed.

A lookup that hits costs one dict access and no await. What is true of an entry:

verified    Redis was asked, and would have told if the record had changed since.
last known  Redis went away after that. Served for LAST_KNOWN_S, then forgotten: better none than a stranger's machine.
changed     Redis said so. Never served again; the record is being read anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import math
import time
from collections.abc import Callable

from edge.config import Limits
from edge.feed import RouteListener
from edge.headers import route_fields
from edge.limits import TokenBucket
from edge.log import Log
from edge.pool import Pool
from edge.routes import BadRoute, Route, RouteStatus, decode, is_label

LAST_KNOWN_S = 60.0  # Security notes 4.3: longer than a restart of Redis, shorter than a recycled address.
UNKNOWN_KEPT_S = 5.0  # Changes are pushed for unknown labels too: this bounds memory, not freshness.
UNKNOWN_MAX = 20_000  # Guessed labels kept at once; at more, all are forgotten.

Answer = Callable[["Entry | None"], None]


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """One label's route, prepared. `route` None: there is none. `pool` is set when requests can be forwarded."""

    route: Route | None
    bucket: TokenBucket
    pool: Pool | None = None
    fields: bytes = b""
    verified: bool = True
    trusted_until: float = math.inf


class RouteTable(RouteListener):
    """Entries by label."""

    def __init__(
        self,
        ask: Callable[[str], bool],
        limits: Limits,
        rate_limit: float,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._limits = limits
        self._rate = rate_limit
        self._log = log
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._unknown: dict[str, float] = {}
        self._waiting: dict[str, list[Answer]] = {}
        self._nowhere = Entry(None, TokenBucket(0, 0.0))
        self.contacted = asyncio.Event()  # Set once Redis has been reached for the first time.

    def verified(self, label: str) -> Entry | None:
        """The entry that may be used at once; None: `resolve` must ask."""
        entry = self._entries.get(label)
        if entry is not None and entry.verified:
            return entry
        return self._nowhere if label in self._unknown else None

    def resolve(self, label: str, answer: Answer) -> None:
        """Call `answer` once, now or later, with the label's entry; with None when nobody can say where it leads."""
        if not is_label(label):
            answer(self._nowhere)
            return
        waiting = self._waiting.get(label)
        if waiting is not None:
            waiting.append(answer)
        elif self._ask(label):
            self._waiting[label] = [answer]
        else:
            answer(self._last_known(label))

    def _last_known(self, label: str) -> Entry | None:
        entry = self._entries.get(label)
        return entry if entry is not None and self._clock() < entry.trusted_until else None

    def size(self) -> int:
        """Labels that lead somewhere or show a page of their own."""
        return len(self._entries)

    # What the feed says.

    def learned(self, label: str, record: bytes | None) -> None:
        old = self._entries.pop(label, None)
        route = self._decoded(label, record)
        if route is None:
            self._drop(old)
            self._note_unknown(label)
            entry = self._nowhere
        else:
            self._unknown.pop(label, None)
            entry = self._entries[label] = self._prepared(route, old)
        for answer in self._waiting.pop(label, ()):
            answer(entry)

    def changed(self, label: str | None) -> None:
        if label is None:
            for each in list(self._entries):
                self.changed(each)
            self._unknown.clear()
            return
        self._unknown.pop(label, None)
        entry = self._entries.get(label)
        if entry is None:
            return
        entry.verified = False
        entry.trusted_until = 0.0
        # Read it again before anybody asks: the idle connections of a withdrawn route close now.
        if label not in self._waiting and self._ask(label):
            self._waiting[label] = []

    def lost(self) -> None:
        until = self._clock() + LAST_KNOWN_S
        for entry in self._entries.values():
            if entry.trusted_until == math.inf:
                entry.trusted_until = until
        self._unknown.clear()
        waiting, self._waiting = self._waiting, {}
        for label, answers in waiting.items():
            known = self._last_known(label)
            for answer in answers:
                answer(known)

    def back(self) -> None:
        self.contacted.set()
        for entry in self._entries.values():
            entry.verified = False

    # Time.

    def sweep(self) -> None:
        """Forget what may no longer be served and close what is no longer used; called every second or so."""
        now = self._clock()
        for label, entry in list(self._entries.items()):
            if now >= entry.trusted_until and label not in self._waiting:
                self._drop(self._entries.pop(label))
            elif entry.pool is not None:
                entry.pool.close_idle()
        for label in [label for label, until in self._unknown.items() if now >= until]:
            del self._unknown[label]

    def renew_tls(self) -> None:
        """Other CAs are trusted from now on: every VM that is reached by TLS proves itself anew."""
        for entry in self._entries.values():
            if entry.pool is not None and entry.pool.route.tls:
                entry.pool.renew()

    def close(self) -> None:
        """Close every idle connection to a VM."""
        for entry in self._entries.values():
            self._drop(entry)

    # Entries.

    def _decoded(self, label: str, record: bytes | None) -> Route | None:
        if record is None:
            return None
        try:
            route = decode(record)
            _refuse_address(route)
        except BadRoute as bad:
            self._log.warning("route refused", label=label, error=str(bad), error_code="bad_route")
            return None
        return route

    def _prepared(self, route: Route, old: Entry | None) -> Entry:
        bucket = old.bucket if old else TokenBucket(self._rate, self._clock())
        if route.status is not RouteStatus.READY:
            self._drop(old)
            return Entry(route, bucket)
        if old and old.pool and old.pool.leads_to(route):
            pool = old.pool
        else:
            self._drop(old)
            pool = Pool(route, self._limits, self._clock)
        return Entry(route, bucket, pool, route_fields(route))

    def _drop(self, entry: Entry | None) -> None:
        if entry is not None and entry.pool is not None:
            entry.pool.close()

    def _note_unknown(self, label: str) -> None:
        if len(self._unknown) >= UNKNOWN_MAX:
            self._unknown.clear()
        self._unknown[label] = self._clock() + UNKNOWN_KEPT_S


def _refuse_address(route: Route) -> None:
    """Metadata services and addresses that are no machine never get a visitor's request, whoever wrote the record."""
    if route.status is not RouteStatus.READY:
        return
    address = ipaddress.ip_address(route.ip)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if any(a.is_link_local or a.is_multicast or a.is_unspecified for a in (address, mapped) if a is not None):
        raise BadRoute(f"ip {route.ip} is not the address of a VM")
