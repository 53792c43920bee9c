"""How long a preview lives: its time from the last deploy, the warnings before the end, pins and extensions. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from workflows.messages import Asked
from workflows.orders import LifetimeRow

LAST_WARNING_S = 3600.0  # Time enough to finish a review, or to extend it.
EARLY_WARNING_LIMIT_S = 24 * 3600.0  # A week's preview is announced a day ahead, not two.
EARLY_SHARE = 0.25
PUSH_LIMIT_S = 24 * 3600.0  # No push lasts longer: queueing, building, booting and deploying are limited to hours.


class Warning(enum.StrEnum):
    """The warnings about a preview's end, in their order, which is that of their values as text too."""

    NONE = ""
    EARLY = "early"
    LAST = "last"


class Due(enum.Enum):
    """What is to be done now."""

    NOTHING = enum.auto()
    WARN = enum.auto()
    RENEW = enum.auto()
    END = enum.auto()


@dataclass(slots=True)
class Lifetime:
    """Times are Unix seconds. `expires_at` None: nothing counts (no push has ended yet).

    `vm_expires_at`: the preview VM's dead-man deadline, kept at least half of `margin_s` beyond the end (or beyond
    now, for a pinned one), so that it never strikes while its owner is well.
    """

    margin_s: float
    ttl_s: float = 0.0
    expires_at: float | None = None
    is_pinned: bool = False
    warning: Warning = Warning.NONE
    vm_expires_at: float = 0.0

    def begin(self, now: float, ttl_s: float) -> None:
        """Count from now: something was deployed. An end that somebody moved further away stays there."""
        self.expires_at = max(now + ttl_s, self.expires_at or 0.0)
        self.ttl_s, self.warning = ttl_s, Warning.NONE

    def resume(self, now: float, ttl_s: float) -> None:
        """A push failed: what counted before goes on, but leaves time to read why."""
        if self.expires_at is None:
            self.begin(now, ttl_s)
        elif self.expires_at < now + self._early_s:
            self.expires_at, self.warning = now + self._early_s, Warning.EARLY

    def extend(self, now: float, seconds: float) -> None:
        self.expires_at = max(now, self.expires_at or now) + seconds
        self.ttl_s = max(self.ttl_s, self.expires_at - now)
        self.warning = Warning.NONE

    def pin(self, now: float, pinned: bool) -> None:
        """Pin it, or let its time count from now. A second call of the same kind changes nothing."""
        if self.is_pinned and not pinned and self.expires_at is not None:
            self.begin(now, self.ttl_s)
        self.is_pinned = pinned

    def due(self, now: float, *, is_pushing: bool = False) -> Due:
        """While a push runs nobody is warned and nothing ends; only its VM must not be taken away."""
        if is_pushing:
            return Due.RENEW if self._is_renewal_due(now) else Due.NOTHING
        if self._end is not None and now >= self._end:
            return Due.END
        if self._next_warning(now) is not None:
            return Due.WARN
        return Due.RENEW if self._is_renewal_due(now) else Due.NOTHING

    def warn(self, now: float) -> None:
        """Note that the warning that is due is being given."""
        self.warning = self._next_warning(now) or self.warning

    def wakes_at(self, now: float, *, is_pushing: bool = False) -> float | None:
        """The next time at which something is due; None: never, or not before any push must have ended."""
        if is_pushing:
            is_near = self.vm_expires_at and self._renewal < now + PUSH_LIMIT_S
            return self._renewal if is_near else None
        times = [at for at, level in self._warnings() if level > self.warning and at > now]
        if self._end is not None:
            times.append(self._end)
        if self.vm_expires_at:
            times.append(self._renewal)
        return min(times, default=None)

    def needs_renewal(self, now: float) -> bool:
        """Whether the VM's deadline is too near to its preview's end."""
        end = now if self.is_pinned or self.expires_at is None else max(now, self.expires_at)
        return self.vm_expires_at <= end + self.margin_s / 2

    def renew(self, now: float) -> float:
        """The VM's new deadline."""
        end = now + self.ttl_s if self.is_pinned or self.expires_at is None else max(now, self.expires_at)
        self.vm_expires_at = end + self.margin_s
        return self.vm_expires_at

    def row(self, vm_id: str) -> LifetimeRow:
        return LifetimeRow(self._end, self.is_pinned, self.warning, vm_id, self.vm_expires_at)

    def asked(self) -> Asked:
        return Asked(self._end, self.is_pinned)

    @property
    def _end(self) -> float | None:
        return None if self.is_pinned else self.expires_at

    def _is_renewal_due(self, now: float) -> bool:
        return bool(self.vm_expires_at) and now >= self._renewal

    @property
    def _renewal(self) -> float:
        return self.vm_expires_at - self.margin_s / 2

    @property
    def _early_s(self) -> float:
        return min(EARLY_SHARE * self.ttl_s, EARLY_WARNING_LIMIT_S)

    def _warnings(self) -> list[tuple[float, Warning]]:
        """(time, warning): a quarter ahead, then an hour ahead where that is the later one."""
        if self._end is None:
            return []
        early = [(self._end - self._early_s, Warning.EARLY)]
        return [*early, (self._end - LAST_WARNING_S, Warning.LAST)] if self._early_s > LAST_WARNING_S else early

    def _next_warning(self, now: float) -> Warning | None:
        due = [level for at, level in self._warnings() if now >= at and level > self.warning]
        return due[-1] if due else None
