"""Open connections to one ingress of one VM: kept for the next request, newest first, and bounded in number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.config import Limits
from edge.routes import Route, vm_name

if TYPE_CHECKING:
    from edge.upstream import Upstream


class Pool:
    """The connections to where one route leads. They are never shared with another environment or address."""

    __slots__ = ("_clock", "_idle", "_limits", "epoch", "is_closed", "open_count", "route", "vm_name")

    def __init__(self, route: Route, limits: Limits, clock: Callable[[], float]) -> None:
        self.route = route
        self.vm_name = vm_name(route.environment)  # By TLS, what the certificate at the other end must bear.
        self.open_count = 0
        self.epoch = 0  # Connections of an earlier one are not kept.
        self.is_closed = False
        self._limits = limits
        self._clock = clock
        self._idle: list[Upstream] = []

    def leads_to(self, route: Route) -> bool:
        """Whether that route may use these connections."""
        mine = self.route
        return (mine.ip, mine.port, mine.tls, mine.environment) == (route.ip, route.port, route.tls, route.environment)

    def is_full(self) -> bool:
        return self.open_count >= self._limits.pool_open_max

    def take(self, now: float) -> Upstream | None:
        """The connection used last; None when none is idle."""
        idle = self._idle
        oldest = now - self._limits.pool_idle_s
        while idle:
            upstream = idle.pop()
            if upstream.idle_since > oldest and not upstream.is_closing() and not upstream.has_unread():
                return upstream
            upstream.close()
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep a connection whose last exchange is complete on both sides; or close it. `take` sees if it lives."""
        if self.is_closed or upstream.epoch != self.epoch or len(self._idle) >= self._limits.pool_idle_max:
            upstream.close()
            return
        upstream.idle_since = self._clock()
        self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """That connection closed."""
        self.open_count -= 1
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close_idle(self) -> None:
        """Close what nobody used for a while; the oldest stand first."""
        oldest = self._clock() - self._limits.pool_idle_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()

    def renew(self) -> None:
        """Use no connection again that is open now: close what is idle, and the rest when its exchange ends."""
        self.epoch += 1
        self._close_all_idle()

    def close(self) -> None:
        """The route leads elsewhere now: close what is idle, and the rest when its exchange ends."""
        self.is_closed = True
        self._close_all_idle()

    def _close_all_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
